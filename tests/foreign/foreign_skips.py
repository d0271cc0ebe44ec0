"""A plugin of pytest: skips the tests that cannot run on an emulated system, and says why."""

from __future__ import annotations

import os

import pytest

_LINKS = "it asks for symbolic links, which users of Windows may not make; test_system.py has the other ways"
_KILLS = "Windows ends a process at once on SIGTERM, and has no SIGHUP: nothing is printed"
_CGROUPS = "cgroups are Linux' own"
_OPEN = "Windows does not let anyone replace or remove a file that is open"
_REMOVED = "Windows itself removes the files of processes that end"
_FORKS = "it is about forked processes"
_SCORES = "only Linux chooses by a score which process it kills"

ALWAYS = {
    "test_operating_systems.py": "it starts the emulation itself",
    "test_real_cgroup.py": _CGROUPS,
    "test_mask_files.py::test_no_code_of_a_pickle_is_run": "open is a function of the emulation",
    "test_server.py": _FORKS,
    "test_engines.py::test_the_server_that_workers_are_forked_from_may_die_too": _FORKS,
    "test_engines.py::test_numpy_starts_no_threads_in_the_process_that_forks_workers": _FORKS,
    "test_engines.py::test_the_system_kills_workers_before_the_caller": _SCORES,
    "test_engines.py::test_a_worker_that_imports_its_modules_is_killed_before_the_caller": _SCORES,
    "test_start_methods.py::test_linux_forks_and_systems_without_memfd_spawn": _FORKS,
    "test_start_methods.py::test_an_unknown_start_method_is_an_error": _FORKS,
    "test_start_methods.py::test_both_start_methods_write_the_same_file": _FORKS,
}
WINDOWS = {
    "test_system.py::test_macos_command_that_empties_the_cache_of_the_drive": "it is about macOS",
    "test_system.py::test_a_folder_with_the_files_of_another[links]": _LINKS,
    "test_system.py::test_functions_of_the_c_library": "Windows has no handle for all libraries of a process",
    "test_start_methods.py::test_no_file_is_left_when_workers_are_killed[spawn]": _REMOVED,
    "test_start_methods.py::test_a_worker_that_runs_has_removed_the_name_of_its_file": _REMOVED,
    "test_start_methods.py::test_workers_end_with_a_killed_caller": _REMOVED,
    "test_store.py::TestInMemory::test_what_was_changed_since_it_was_read_is_written_and_the_rest_linked": _LINKS,
    "test_store.py::TestInMemory::test_an_element_read_under_another_name_is_linked": _LINKS,
    "test_using_images.py::test_many_images_of_a_file_that_was_replaced_meanwhile": _OPEN,
    "test_using_images.py::test_in_memory_nothing_is_needed_of_the_file": _OPEN,
    "test_using_images.py::test_a_pickled_one_whose_file": _OPEN,
    "test_unfinished.py::test_the_command_line_ends_tidily_and_goes_on[h5sc-1-129]": _KILLS,
}
"""Beginnings of the names of tests, and reasons."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skipped = ALWAYS | (WINDOWS if os.environ.get("CELLSTAMP_FOREIGN") == "windows" else {})
    for item in items:
        if isinstance(item, pytest.Function) and _forks(item):
            item.add_marker(pytest.mark.skip(reason=_FORKS))
        name = f"{item.path.name}::{item.nodeid.partition('::')[2]}"
        for beginning, reason in skipped.items():
            if name.startswith(beginning):
                item.add_marker(pytest.mark.skip(reason=reason))


def _forks(item: pytest.Function) -> bool:
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(isinstance(value, str) and value == "fork" for value in values)
