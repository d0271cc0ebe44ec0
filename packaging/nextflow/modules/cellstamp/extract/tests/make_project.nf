// A project to test with: the image that cellstamp brings, and its masks.
process MAKE_PROJECT {
    container "cellstamp:0.1.0"

    output:
    path "demo/project", emit: project

    script:
    """
    cellstamp demo demo
    """
}
