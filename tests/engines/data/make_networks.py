#!/usr/bin/python3
"""Writes the other files of this folder, for the tests in tests/engines. Needs python3-onnx, python3-numpy and python3-opencv.

The networks are small, so that a test can say what must come out, and many of them are wrong in one way each. digits.pgm has
the scans of examples/models/digit_encoder_reference.txt, one below the other, in a form that needs no decoder.
"""

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).resolve().parent
MODELS = FOLDER.parents[2] / "examples" / "models"
IMAGE = ["N", 3, 4, 4]
ANY_SIZE = ["N", 3, "H", "W"]


def tensor(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def constant(name, values, kind=np.float32):
    return numpy_helper.from_array(np.array(values, kind), name)


def write(name, nodes, inputs, outputs, constants=(), **opset):
    graph = helper.make_graph(
        nodes,
        name,
        [tensor(input_name, shape) for input_name, shape in inputs.items()],
        [tensor(output_name, shape) for output_name, shape in outputs.items()],
        list(constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6, producer_name="roster")
    data = model.SerializeToString()
    assert len(data) < 2048, name
    (FOLDER / f"{name}.onnx").write_bytes(data)


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def mean(source, target):
    """The mean of each channel."""
    return [node("GlobalAveragePool", source, f"pooled_{target}"), node("Flatten", f"pooled_{target}", target, axis=1)]


# What a network should be.
write("mean", mean("image", "embedding"), {"image": ANY_SIZE}, {"embedding": ["N", 3]})
write("pixels", [node("Flatten", "image", "embedding", axis=1)], {"image": ["N", 3, 2, 3]}, {"embedding": ["N", 18]})
write("pooled", [node("GlobalAveragePool", "image", "embedding")], {"image": IMAGE}, {"embedding": ["N", 3, 1, 1]})
write("logarithm", [*mean("image", "means"), node("Log", "means", "embedding")], {"image": IMAGE}, {"embedding": ["N", 3]})
write("two_outputs", [*mean("image", "means"), node("Flatten", "image", "pixels", axis=1)], {"image": IMAGE},
      {"means": ["N", 3], "pixels": ["N", 48]})

# Weights as a list, and -1 for a size that is left open: so do some exporters.
write("listed_weights", [node("Conv", "image weights", "map", kernel_shape=[1, 1]), *mean("map", "embedding")],
      {"image": [-1, 3, 4, 4]}, {"embedding": ["N", 1]}, [helper.make_tensor("weights", TensorProto.FLOAT, (1, 3, 1, 1), [1, 2, 3])])

# Exported for one batch size only, which then also stands in a Reshape.
for batch in (1, 2):
    write(f"batch_of_{batch}", [node("Reshape", "image shape", "embedding")], {"image": [batch, 3, 2, 2]},
          {"embedding": [batch, 12]}, [constant("shape", [batch, 12], np.int64)])

# Exported for one batch size, and each vector is the sum of both images.
write("mixed_batch",
      [node("Reshape", "image together", "both"), node("Conv", "both weights", "sums", kernel_shape=[1, 1]),
       node("Reshape", "sums apart", "embedding")], {"image": [2, 3, 2, 2]}, {"embedding": [2, 12]},
      [constant("together", [1, 6, 2, 2], np.int64), constant("apart", [2, 12], np.int64),
       constant("weights", np.tile(np.eye(3), (2, 2)).reshape(6, 6, 1, 1))])

# What attention does: a product of two activations, then a multiplication with a constant. Each pixel of the first channel
# with each pixel of it, times 1/4: the sum over the row is mean * pixel.
write("attention",
      [node("Reshape", "image rows", "column"), node("Transpose", "column", "row", perm=[0, 2, 1]),
       node("MatMul", "column row", "products"), node("Mul", "products quarter", "scaled"),
       node("Flatten", "scaled", "embedding", axis=1)],
      {"image": [1, 3, 1, 1]}, {"embedding": [1, 9]},
      [constant("rows", [1, 3, 1], np.int64), constant("quarter", 0.25)])

# What a network should not be.
write("no_input", [node("Relu", "constant", "embedding")], {}, {"embedding": [1, 3]}, [constant("constant", [[1, 2, 3]])])
write("two_inputs", [node("Add", "image other", "sum"), *mean("sum", "embedding")], {"image": IMAGE, "other": IMAGE},
      {"embedding": ["N", 3]})
write("grey", [node("Flatten", "image", "embedding", axis=1)], {"image": ["N", 1, 4, 4]}, {"embedding": ["N", 16]})
write("channels_last", [node("Flatten", "image", "embedding", axis=1)], {"image": ["N", 4, 4, 3]}, {"embedding": ["N", 48]})
write("vector_input", [node("Relu", "vector", "embedding")], {"vector": ["N", 48]}, {"embedding": ["N", 48]})
write("feature_map", [node("Relu", "image", "embedding")], {"image": IMAGE}, {"embedding": IMAGE})
write("sideways", [*mean("image", "rows"), node("Transpose", "rows", "embedding", perm=[1, 0])], {"image": IMAGE},
      {"embedding": [3, "N"]})
write("unknown_operator", [node("Quux", "image", "embedding")], {"image": IMAGE}, {"embedding": ["N", 3]})
write("missing_weights", [node("Conv", "image weights", "map", kernel_shape=[1, 1]), *mean("map", "embedding")], {"image": IMAGE},
      {"embedding": ["N", 1]})
write("wrong_weights", [node("Conv", "image weights", "map", kernel_shape=[1, 1]), *mean("map", "embedding")], {"image": IMAGE},
      {"embedding": ["N", 1]}, [constant("weights", np.ones((1, 5, 1, 1)))])

# Weights of which the file has fewer than their shape says, in either form, and in a constant.
short = constant("weights", np.ones((1, 3, 1, 1)))
short.raw_data = short.raw_data[:4]
write("short_weights", [node("Conv", "image weights", "map", kernel_shape=[1, 1]), *mean("map", "embedding")], {"image": IMAGE},
      {"embedding": ["N", 1]}, [short])
listed = helper.make_tensor("weights", TensorProto.FLOAT, (1, 3, 1, 1), [1, 1, 1])
listed.dims[2] = 8192
write("short_list", [node("Conv", "image weights", "map", kernel_shape=[1, 1]), *mean("map", "embedding")], {"image": IMAGE},
      {"embedding": ["N", 1]}, [listed])
short.name = ""
write("short_constant", [node("Constant", "", "weights", value=short),
                         node("Conv", "image weights", "map", kernel_shape=[1, 1]), *mean("map", "embedding")],
      {"image": IMAGE}, {"embedding": ["N", 1]})

weights = constant("weights", np.ones((1, 3, 1, 1)))
weights.ClearField("raw_data")
weights.data_location = TensorProto.EXTERNAL
weights.external_data.add(key="location", value="weights.bin")
write("weights_elsewhere", [node("Conv", "image weights", "map", kernel_shape=[1, 1]), *mean("map", "embedding")], {"image": IMAGE},
      {"embedding": ["N", 1]}, [weights])

# One step of a drawing that is NaN where the noise is below -1, one that is too small, and a text generator that is.
FLOW = {"image": [1, 1, 32, 32], "time": [1, 1], "text": [1, 64]}
USED = [node("Flatten", "image", "row", axis=1), node("Concat", "row time text", "all", axis=1)]
ENDS = [constant("first", [0], np.int64), constant("last", [1024], np.int64), constant("axis", [1], np.int64)]
write("flow_nan", [*USED, node("Slice", "all first last axis", "kept"), node("Add", "kept one", "more"), node("Log", "more", "clean")],
      FLOW, {"clean": [1, 1024]}, [*ENDS, constant("one", 1)])
write("flow_colours", [*USED, node("Slice", "all first last axis", "kept"), node("Mul", "kept nothing", "zeros"), node("Add", "zeros colours", "clean")],
      {**FLOW, "image": [1, 3, 2, 2]}, {"clean": [1, 12]},
      [ENDS[0], constant("last", [12], np.int64), ENDS[2], constant("nothing", 0), constant("colours", [[-1] * 4 + [0] * 4 + [1] * 4])])
HUGE = [1, 1, 1 << 17, 1 << 17]
write("flow_huge", [node("Relu", "image", "clean")], {**FLOW, "image": HUGE}, {"clean": HUGE})
write("flow_small", [*USED, node("ReduceMean", "all", "clean", axes=[1], keepdims=1)], FLOW, {"clean": [1, 1]})
write("scores_small", [node("ReduceMean", "text", "scores", axes=[3], keepdims=1)], {"text": [1, 47, 1, 96]},
      {"scores": [1, 47, 1, 1]})
write("small_window", [node("Relu", "text", "scores")], {"text": [1, 47, 1, 48]}, {"scores": [1, 47, 1, 48]})
write("scores_nan", [node("Log", "text", "logarithms"), node("Add", "logarithms text", "scores")], {"text": [1, 47, 1, 96]},
      {"scores": [1, 47, 1, 96]})

sheet = cv2.imread(str(MODELS / "digits.png"), cv2.IMREAD_GRAYSCALE)
scans = [int(line.split()[0]) for line in (MODELS / "digit_encoder_reference.txt").read_text().splitlines()]
rows = np.concatenate([sheet[scan // 50 * 8:, scan % 50 * 8:][:8, :8] for scan in scans])
(FOLDER / "digits.pgm").write_bytes(b"P5\n8 %d\n255\n" % len(rows) + rows.tobytes())
