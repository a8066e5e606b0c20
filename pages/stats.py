from .parts.viewer import Viewer


def page(viewer: Viewer) -> None: ...
