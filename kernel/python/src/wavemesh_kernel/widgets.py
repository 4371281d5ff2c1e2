"""The Rust side's widgets are those of ipywidgets 8. A page with version 7, such as Colab's, knows them under other versions."""

from importlib import metadata as installed

VERSIONS = {"@jupyter-widgets/controls": "1.5.0", "@jupyter-widgets/base": "1.2.0"}
PROTOCOL = {"version": "2.0.0"}


def for_installed(content, metadata):
    """The content and the metadata of a `comm_open` as the page of the installed ipywidgets takes them."""
    try:
        major = int(installed.version("ipywidgets").split(".")[0])
    except (installed.PackageNotFoundError, ValueError):
        return content, metadata
    if content.get("target_name") != "jupyter.widget" or major >= 8:
        return content, metadata
    state = dict(content["data"]["state"])
    for part in ("model", "view"):
        version = VERSIONS.get(state.get(f"_{part}_module"))
        if version:
            state[f"_{part}_module_version"] = version
    return {**content, "data": {**content["data"], "state": state}}, {**(metadata or {}), **PROTOCOL}
