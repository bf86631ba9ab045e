"""A network as the graph of its layers, traced by torch.fx: what is found in it does not depend on its names.

Pruning, re-fit, sensitivity, folding and fake-quantization know the operations that are listed here. A network with
another one is refused before anything runs.
"""

import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from leanface.errors import NetworkError

LAYERS = (nn.Conv2d, nn.Linear)
"""What is pruned, re-fitted and quantized."""

NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)

POSITIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid)
"""Activations that are never negative."""

ACTIVATIONS = (*POSITIVE, nn.LeakyReLU, nn.ELU, nn.GELU, nn.Hardswish, nn.Mish, nn.SiLU, nn.Tanh)

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)

PASSED = (nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Identity)
"""Modules that leave values as they are, for inference."""

POSITIVE_FUNCTIONS = (F.relu, F.relu6, torch.relu, torch.sigmoid)
FUNCTIONS: tuple[Any, ...] = (
    *POSITIVE_FUNCTIONS, F.leaky_relu, F.elu, F.gelu, F.hardswish, F.mish, F.silu, torch.tanh,
    F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, torch.flatten,
    torch.mean,
)  # fmt: skip
METHODS = ("flatten", "mean", "relu", "sigmoid", "tanh", "to", "float", "contiguous")
ADDITIONS: tuple[Any, ...] = (operator.add, torch.add)
CONCATENATIONS: tuple[Any, ...] = (torch.cat, torch.concat)

IN_PLACE: Mapping[Any, Any] = {operator.iadd: operator.add, "add_": "add", "relu_": "relu", "sigmoid_": "sigmoid"}
"""Operations that change their input, and those that compute the same."""

REMEDIES = {
    "view": "use torch.flatten(x, 1)",
    "reshape": "use torch.flatten(x, 1)",
    "size": "use torch.flatten(x, 1) in place of a reshape by sizes",
    "getattr": "do not branch on shapes; use torch.flatten(x, 1) in place of a reshape by sizes",
    "dropout": "use nn.Dropout",
    "batch_norm": "use nn.BatchNorm2d",
    "conv2d": "use nn.Conv2d",
    "linear": "use nn.Linear",
}
"""What to do about operations that are often met."""

KNOWN = (
    "Conv2d, Linear, BatchNorm, the common activations, max and average pooling, additions of two feature maps, "
    "concatenation and flatten"
)

Kind = TypeVar("Kind", bound=nn.Module)


class ResidualAdd(nn.Module):
    """identity + residual, as a module of its own so that quantization can give the identity branch a quantizer."""

    def forward(self, identity: Tensor, residual: Tensor) -> Tensor:
        return identity + residual


MODULES = (*LAYERS, *NORMS, *ACTIVATIONS, *POOLS, *PASSED, ResidualAdd)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A fake-quantized layer is still an instance of the layer that it was.
        return isinstance(m, MODULES) or super().is_leaf_module(m, module_qualified_name)


class Graph:
    """The operations of a network in order of execution, for images of any content.

    Attributes:
        network: the one that was traced; networks of the same structure may be computed by the graph too.
        nodes: the operations; the first is the input and the last the output.
    """

    def __init__(self, network: nn.Module, traced: fx.Graph) -> None:
        """Take what `trace` found."""
        self.network = network
        self.fx = traced
        self.nodes = list(traced.nodes)

    def module(self, node: fx.Node, kind: type[Kind] | tuple[type[Kind], ...]) -> Kind | None:
        """Return the module that a node calls, if it is of that kind."""
        if node.op != "call_module":
            return None
        module = self.network.get_submodule(str(node.target))
        return module if isinstance(module, kind) else None

    @cached_property
    def layers(self) -> dict[str, fx.Node]:
        """Convolutions and linear layers by module name, in order of execution."""
        return {str(node.target): node for node in self.nodes if self.module(node, LAYERS) is not None}

    @cached_property
    def norms(self) -> dict[str, str]:
        """The batch norm behind each layer whose results nothing else reads, by the layer's name."""
        found: dict[str, str] = {}
        for name, node in self.layers.items():
            readers = list(node.users)
            if len(readers) == 1 and self.module(readers[0], NORMS) is not None:
                found[name] = str(readers[0].target)
        return found

    @cached_property
    def output_layers(self) -> tuple[str, ...]:
        """The layers that the network answers with: no other layer reads what they compute."""
        found, seen, waiting = set[str](), set[fx.Node](), [self.nodes[-1]]
        while waiting:
            for node in waiting.pop().all_input_nodes:
                if node in seen:
                    continue
                seen.add(node)
                if node in self.layers.values():
                    found.add(str(node.target))
                else:
                    waiting.append(node)
        return tuple(name for name in self.layers if name in found)

    def is_inside(self, node: fx.Node, modules: Collection[str]) -> bool:
        """Tell whether one of these modules computes a node."""
        stack = cast(dict[str, Any], node.meta.get("nn_module_stack") or {})
        return any(name in modules for name in stack)

    def operands(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """Return what a node adds, in the order of its arguments; None for another operation."""
        adds = self.module(node, ResidualAdd) is not None or node.target in (*ADDITIONS, "add")
        inputs = [each for each in node.args if isinstance(each, fx.Node)]
        return (inputs[0], inputs[1]) if adds and len(inputs) == 2 else None

    def non_negative(self, node: fx.Node) -> bool:
        """Tell whether what a node returns is never negative; images are in [0,1]."""
        if node.op == "placeholder" or self.module(node, POSITIVE) is not None:
            return True
        if node.target in (*POSITIVE_FUNCTIONS, "relu", "sigmoid"):
            return True
        passes = self.module(node, (*POOLS, *PASSED)) is not None
        passes |= node.target in (*CONCATENATIONS, "flatten", "mean", "to", "float", "contiguous")
        passes |= "pool" in str(node.target) or node.target in (torch.flatten, torch.mean)
        return passes and all(map(self.non_negative, node.all_input_nodes))

    @cached_property
    def dead_after(self) -> dict[fx.Node, list[fx.Node]]:
        """The nodes whose values nothing reads after a node, by that node."""
        last = {read: node for node in self.nodes for read in node.all_input_nodes}
        dead: dict[fx.Node, list[fx.Node]] = {node: [] for node in self.nodes}
        for node, reader in last.items():
            dead[reader].append(node)
        return dead

    def compute(self, node: fx.Node, values: Mapping[fx.Node, Any], network: nn.Module | None = None) -> Any:
        """Compute a node from the values of those before it, none of which it changes.

        Args:
            network: of the same structure; None: the one that was traced.
        """
        args, kwargs = cast(tuple[Any, Any], map_arg((node.args, node.kwargs), lambda read: values[read]))
        if node.op == "output":
            return args[0]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "call_function":
            return cast(Callable[..., Any], node.target)(*args, **kwargs)
        module = (network or self.network).get_submodule(str(node.target))
        if getattr(module, "inplace", False):
            args = [args[0].clone(), *args[1:]]
        return module(*args, **kwargs)

    def run_from(self, start: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """Compute the network's output, given the values of the nodes before `start`."""
        known = dict(values)
        for node in self.nodes[self.nodes.index(start) :]:
            known[node] = self.compute(node, known)
            for dead in self.dead_after[node]:
                del known[dead]
        return known[self.nodes[-1]]


def trace(network: nn.Module) -> Graph:
    """Trace a network that reads images and answers with one tensor.

    Raises:
        NetworkError: it cannot be traced, or has an operation that is not known; names the module and says what to do.
    """
    kind = type(network).__name__
    try:
        traced = _Tracer().trace(network)
    except Exception as error:  # whatever the network's own code raises when it is given no real tensor
        raise NetworkError(
            f"{kind} cannot be traced by torch.fx ({error}). Its forward must not branch on values or shapes."
        ) from None
    for node in traced.nodes:
        node.target = IN_PLACE.get(node.target, node.target)
        if "inplace" in node.kwargs:
            node.kwargs = {**node.kwargs, "inplace": False}
    graph = Graph(network, traced)
    problems = [problem for node in graph.nodes if (problem := _problem(graph, node)) is not None]
    calls = [str(node.target) for node in graph.nodes if graph.module(node, (*LAYERS, *NORMS)) is not None]
    problems += [
        f"{name} is called more than once: give every call a layer of its own"
        for name in dict.fromkeys(calls)
        if calls.count(name) > 1
    ]
    inputs = sum(node.op == "placeholder" for node in graph.nodes)
    if inputs != 1 or not isinstance(graph.nodes[-1].args[0], fx.Node):
        problems.append("it must take one tensor of images, and return one tensor")
    if problems:
        listed = "\n  ".join(problems)
        raise NetworkError(f"{kind} has operations that LeanFace does not compress:\n  {listed}\nKnown are {KNOWN}.")
    return graph


def _problem(graph: Graph, node: fx.Node) -> str | None:
    """Say what is wrong with an operation, where it is, and what to do; None for a known one."""
    if node.op in ("placeholder", "output") or graph.module(node, MODULES) is not None:
        return None
    known = {"call_function": (*FUNCTIONS, *CONCATENATIONS), "call_method": METHODS}.get(node.op, ())
    if node.target in known or graph.operands(node) is not None:
        return None
    if node.op == "call_module":
        name = type(graph.network.get_submodule(str(node.target))).__name__
        return f"{node.target}: {name}; put another module in its place"
    name = getattr(node.target, "__name__", str(node.target))
    stack = cast(dict[str, Any], node.meta.get("nn_module_stack") or {})
    where = next(reversed(stack), "") or "forward"
    if node.target in (*ADDITIONS, "add"):
        return f"{where}: adds something else than two feature maps; make it a bias of the layer before"
    return f"{where}: {name}; {REMEDIES.get(name, 'write it with the operations below')}"


def with_residual_adds(network: nn.Module) -> nn.Module:
    """Return a network whose additions are modules, `ResidualAdd`s; the same object if they are that already.

    The first input of each is the identity: where only one of two comes straight from a layer, that is the second one.
    """
    graph = trace(network)
    added = {node: operands for node in graph.nodes if (operands := graph.operands(node)) and node.op != "call_module"}
    if not added:
        return network
    made = fx.GraphModule(network, graph.fx)
    for index, (node, (first, second)) in enumerate(added.items()):
        if _from_layer(graph, first) and not _from_layer(graph, second):
            first, second = second, first
        made.add_submodule(f"residual_add_{index}", ResidualAdd())
        node.op, node.target, node.args, node.kwargs = "call_module", f"residual_add_{index}", (first, second), {}
    made.recompile()
    return made.train(network.training)


def _from_layer(graph: Graph, node: fx.Node) -> bool:
    return graph.module(node, (*LAYERS, *NORMS)) is not None


def layers_of(network: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the convolutions and linear layers by module name, in the order in which the network has them."""
    modules = cast(Iterable[tuple[str, nn.Module]], network.named_modules())
    return {name: module for name, module in modules if isinstance(module, LAYERS)}
