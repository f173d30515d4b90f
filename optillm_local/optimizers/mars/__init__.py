"""MARS, the Multi-Agent Reasoning System: explore, verify, aggregate, improve, select."""

from optillm_local.optimizers.mars.agents import Team
from optillm_local.optimizers.mars.aggregation import Aggregator, register_aggregator
from optillm_local.optimizers.mars.config import MarsConfig
from optillm_local.optimizers.mars.optimizer import Mars
from optillm_local.optimizers.mars.output import MarsOutput
from optillm_local.optimizers.mars.strategy_network import StrategyNetwork
from optillm_local.optimizers.mars.workspace import Draft, Verification, Workspace

__all__ = [
    "Aggregator",
    "Draft",
    "Mars",
    "MarsConfig",
    "MarsOutput",
    "StrategyNetwork",
    "Team",
    "Verification",
    "Workspace",
    "register_aggregator",
]
