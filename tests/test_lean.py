"""What a process of comigs alone leaves out of its libraries, and that it comes when asked for."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from comigs.heap import own_process
own_process()
import torch
from torch.utils.checkpoint import checkpoint
from comigs.backbone.base import load_base
from comigs.backbone.stored import quantiser
from comigs.mixture.adapters import adapter_parameters
from comigs.mixture.experts import add_experts
from comigs.config.experts import ExpertsConfig

model = add_experts(load_base("comigs-tiny", "float32"), ExpertsConfig())
quantiser()
parameters = [p.requires_grad_(True) for p in adapter_parameters(model).values()]
optimizer = torch.optim.AdamW(parameters)
x = torch.ones(3, requires_grad=True)
y = checkpoint(torch.exp, x, use_reentrant=False)
torch.autograd.grad(y, x, torch.ones(3))
model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
optimizer.step()
print([name for name in ("scipy", "sympy", "torch._inductor", "networkx") if name in sys.modules])

import torch._dynamo.utils
from torch.fx.experimental.symbolic_shapes import ShapeEnv, sym_eq
compiled = torch.compile(lambda x: 2 * x, backend="eager")
print(compiled(x).tolist(), sym_eq((1, 2), (1, 3)))
try:
    torch.autograd.grad(torch.exp(x), x, torch.ones(2))
except RuntimeError as error:
    print("Mismatch" in str(error))
"""


@pytest.mark.slow
def test_training_loads_no_compiler_and_it_works_when_it_is_asked_for():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[2.0, 2.0, 2.0] False", "True"]
