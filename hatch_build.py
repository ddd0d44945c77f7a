"""Build hook: puts the repository's weights/ folder inside the package in real (not editable) wheels."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WeightsHook(BuildHookInterface):
    """Maps ``weights/`` to ``vggish_pt/weights/`` in the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before the build; ``version`` is 'standard' or 'editable'."""
        if version == "standard":
            build_data["force_include"]["weights"] = "vggish_pt/weights"
