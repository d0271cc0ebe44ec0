process CELLSTAMP_EXTRACT {
    tag "$meta.id"
    label 'process_high'

    conda "${moduleDir}/environment.yml"
    container "cellstamp:0.1.0"

    input:
    tuple val(meta), path(project, stageAs: 'input/*'), path(config)

    output:
    tuple val(meta), path("${prefix}.h5sc"), emit: h5sc
    tuple val(meta), path("${prefix}.log") , emit: log
    tuple val("${task.process}"), val('cellstamp'), eval("cellstamp --version | sed 's/.* //'"), topic: versions, emit: versions_cellstamp

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def settings = config ?: "${project}/config.yml"
    prefix = task.ext.prefix ?: "${meta.id}"
    // The run has its own folder, since nothing may be written to an input: it links the store and copies the settings.
    """
    mkdir run
    ln -s "\$(realpath ${project})/scportrait.sdata" run/scportrait.sdata
    cp -L ${settings} run/config.yml

    cellstamp extract run \\
        --set threads=${task.cpus} \\
        --set cache=. \\
        --set store_centers=never \\
        --no-progress \\
        ${args}
    cellstamp validate run/extraction/data/single_cells.h5sc

    mv run/extraction/data/single_cells.h5sc ${prefix}.h5sc
    mv run/extraction/processing.log ${prefix}.log
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.h5sc ${prefix}.log
    """
}
