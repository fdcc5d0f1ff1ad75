"""What a stage minimises, and the terms against forgetting: one file each, its settings and its arithmetic together.

A new one is a file here and a line in this module's unions. Nothing here imports torch before a stage runs.
"""

from typing import Annotated

from pydantic import BeforeValidator, Field

from indelible.objectives.base import NoGuard, PairObjective, of_kind
from indelible.objectives.dpo import Dpo
from indelible.objectives.kl import Kl
from indelible.objectives.l2sp import L2Sp
from indelible.objectives.next_token import NextToken

Objective = Annotated[NextToken | Dpo, Field(discriminator="kind"), BeforeValidator(of_kind)]
Guard = Annotated[NoGuard | Kl | L2Sp, Field(discriminator="kind"), BeforeValidator(of_kind)]

__all__ = ["Guard", "NextToken", "NoGuard", "Objective", "PairObjective"]
