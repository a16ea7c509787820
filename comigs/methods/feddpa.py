"""FedDPA-T with fixed weights: a global and a local adapter, trained in turn (arXiv 2403.19211).

    h = W x + (1 - lambda) B_g A_g x + lambda B_l A_l x,    lambda = 1/2

The global adapter trains alone and is averaged; the local one trains beside the global one, which
is frozen meanwhile, with the weights of prediction. As everywhere here adapters are experts, whole
MLPs, whose outputs are averaged; the attention LoRA is the global one's, and acts in full.

The paper can also lower the local weight instance by instance: to 1/2 of the cosine similarity of
the instance's last hidden state to those of training instances, found in a pass of its own before
the answer. That needs an instance whose question is read before its answer is predicted. In running
text every token is both, so that the weight would be drawn from what is being predicted; hence the
fixed form, which is the paper's ceiling of that weight.
"""

from dataclasses import replace

from comigs.methods.base import Method, Within, one_of_each

METHOD = Method(
    name="feddpa",
    paper="arXiv 2403.19211",
    summary="a global expert, averaged, and a local one trained beside it; each counts one half",
    experts=lambda experts: replace(experts, routed=False),
    phases=("generalist_0", Within("specialist_0")),
    accepts=one_of_each,
)
