"""One shape of each kind of layer, and a model of them."""

from core.shapes import AttentionShape, FeedForwardShape, LinearShape, ModelShape


def linear(path: str, parameters: int = 98 * 96) -> LinearShape:
    return LinearShape(
        path=path, tokens=5, parameters=parameters, dense_parameters=98 * 96, in_features=97, out_features=96
    )


def attention(path: str) -> AttentionShape:
    parameters = 96 * 97 + 96 * 288 + 288
    return AttentionShape(
        path=path, tokens=5, keys=5, parameters=parameters, dense_parameters=parameters,
        in_features=96, out_features=96, heads=4, head_dim=24, free_queries=True, free_values=True,
    )  # fmt: skip


def feed_forward(path: str) -> FeedForwardShape:
    parameters = 384 * 96 * 2 + 384 + 96
    return FeedForwardShape(
        path=path, tokens=5, parameters=parameters, dense_parameters=parameters,
        in_features=96, out_features=96, hidden_features=384,
    )  # fmt: skip


LAYERS = (attention("a"), feed_forward("b"), feed_forward("c"), linear("d"))
SHAPE = ModelShape(parameters=sum(layer.parameters for layer in LAYERS) + 1009, macs=10**7, layers=LAYERS)
