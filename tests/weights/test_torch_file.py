"""Reads checkpoints of torch (fixtures/make_torch_fixture.py) and hostile files without torch."""

import functools
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from clustering_jax.errors import UserError
from clustering_jax.methods.cc.method import Network
from clustering_jax.methods.cc.weights import load_cc, torch_name
from clustering_jax.weights.torch_file import read_torch
from tests.paths import FIXTURES

FORMATS = ("torch_zip.pt", "torch_protocol4.pt", "torch_legacy.pt")
BASE = np.arange(12, dtype=np.float32).reshape(3, 4)


def refused(path, match, read=read_torch):
    with pytest.raises(UserError, match=match) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def body(value):
    """Opcodes that push a plain value."""
    return pickletools.optimize(pickle.dumps(value, 2))[2:-1]


def named(name):
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def storage(numel=6, kind="torch.FloatStorage", key="0", head="storage", extra=b""):
    return b"(" + body(head) + named(kind) + body(key) + body("cpu") + body(numel) + extra + b"tQ"


def tensor(offset=0, size=(6,), stride=(1,), stored=None):
    arguments = (stored or storage()) + body(offset) + body(size) + body(stride) + b"\x89N"
    return named("torch._utils._rebuild_tensor_v2") + b"(" + arguments + b"tR"


def program(value):
    """The pickle of {"x": value}, where `value` is opcodes."""
    return b"\x80\x02}" + body("x") + value + b"s."


def archive(path, pickled, members=(), root="archive", **options):
    data = {"data.pkl": pickled, "data/0": np.arange(6, dtype=np.float32).tobytes(), **dict(members)}
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in data.items():
            if content is not None:
                file.writestr(f"{root}/{name}", content)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_torch_are_read(name):
    tree = read_torch(FIXTURES / name)
    for kind, values in tree["types"].items():
        expected = np.array([0, 1, 2, 100]).astype(jnp.bfloat16 if kind == "bfloat16" else kind)
        np.testing.assert_array_equal(values, expected, strict=True)
    arrays = {
        "bool": np.array([True, False]),
        "plain": BASE,
        "transposed": BASE.T,
        "row": BASE[1],
        "columns": BASE[:, 1::2],
        "expanded": np.full((2, 3), 7, np.float32),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": np.array([1, -1], np.float32),
    }
    for key, expected in arrays.items():
        np.testing.assert_array_equal(tree[key], expected, strict=True)
    assert tree["size"] == (2, 3) and tree["dtype"] == np.float16
    assert tree["nested"] == [1, -2.5, None, True, "text", (1, 2, 3, 4), OrderedDict(a=2**40)]


@pytest.mark.parametrize("name", FORMATS)
def test_state_dictionaries_lose_only_their_metadata(name):
    tree = read_torch(FIXTURES / name)
    model, optimizer = tree["model"], tree["optimizer"]
    assert type(model) is OrderedDict and not vars(model)
    assert list(model)[::2] == ["0.weight", "1.weight", "1.running_mean", "1.num_batches_tracked"]
    np.testing.assert_array_equal(model["0.weight"], np.array([[0.5, 0.5]], np.float32), strict=True)
    np.testing.assert_array_equal(model["1.num_batches_tracked"], np.array(1), strict=True)
    np.testing.assert_allclose(optimizer["state"][3]["exp_avg"], [0.3], rtol=1e-6)
    assert optimizer["param_groups"][0]["betas"] == (0.9, 0.999)


def test_arrays_share_the_storage_and_are_read_only():
    tree = read_torch(FIXTURES / "torch_zip.pt")
    assert np.shares_memory(tree["plain"], tree["transposed"])
    assert not tree["plain"].flags.writeable


@pytest.mark.parametrize("kind, dtype", [("Float", "f4"), ("Double", "f8"), ("Short", "i2"), ("Byte", "u1")])
@pytest.mark.parametrize("order", ["little", "big", None])
def test_byte_order_and_root_of_the_archive(tmp_path, kind, dtype, order):
    values = np.arange(6).astype(dtype)
    raw = values.byteswap().tobytes() if order == "big" else values.tobytes()
    pickled = program(tensor(stored=storage(kind=f"torch.{kind}Storage")))
    members = {"data/0": raw, "byteorder": order and order.encode()}
    path = archive(tmp_path / "a.pt", pickled, members, root="any name")
    np.testing.assert_array_equal(read_torch(path)["x"], values, strict=True)


class Payload:
    """Pickles as a call of `function`; callable itself, so that calls chain."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call

    def __call__(self):
        raise NotImplementedError


def payloads(sentinel):
    command, code = f"touch {sentinel}", f"open({str(sentinel)!r}, 'w')"
    system = Payload(getattr, Payload(__import__, "os"), "system")
    return {
        r"(posix|nt)\.system": Payload(os.system, command),
        r"\w*builtin\w*\.eval": Payload(eval, code),
        r"\w*builtin\w*\.exec": Payload(exec, code),
        r"_?io\.open": Payload(open, str(sentinel), "w"),
        r"\w*builtin\w*\.getattr": Payload(system, command),
    }


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("wrap", ["zip", "pickle"])
def test_programs_are_refused_by_name_and_do_not_run(tmp_path, wrap, protocol):
    sentinel, path = tmp_path / "it_ran", tmp_path / "checkpoint.tar"
    for name, payload in payloads(sentinel).items():
        pickled = pickle.dumps({"net": payload}, protocol)
        if wrap == "zip":
            archive(path, pickled)
        else:
            path.write_bytes(pickled)
        if wrap == "pickle" and protocol < 2:
            refused(path, "not a PyTorch checkpoint")  # The file has no header, not even the start of one.
        else:
            refused(path, f"(refers to {name}|uses pickle opcode DICT).*: refused; nothing was executed")
        assert not sentinel.exists()


def test_the_payloads_run_in_an_ordinary_unpickler(tmp_path):
    """Without this, the test above would prove nothing."""
    for i, payload in enumerate(payloads(tmp_path / "it_ran").values()):
        pickle.loads(pickle.dumps(payload))
        (tmp_path / "it_ran").rename(tmp_path / f"it_ran_{i}")


@pytest.mark.parametrize(
    "name",
    [
        "posix.system",
        "torch.nn.modules.linear.Linear",
        "torch.load",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_wrapper_subclass",
        "torch.hub.Storage.x",
        "torch.serialization.EvilStorage",
        "torch.EvilStorage",
        "torch.ComplexFloatStorage",
        "collections.defaultdict",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
        "builtins.set",
        "_codecs.encode",
        "os.path",
    ],
)
def test_other_names_are_refused(tmp_path, name):
    refused(archive(tmp_path / "a.pt", program(named(name))), f"refers to {name}, which is not tensor data")


ORDERED = named("collections.OrderedDict")
HOSTILE = {
    "call of a storage type": (named("torch.FloatStorage") + b")R", "calls torch.FloatStorage"),
    "call of a dictionary": (b"})R", "calls a dict"),
    "call of a dtype": (named("torch.float32") + b")R", "calls a"),
    "attributes of a tensor": (tensor() + b"}b", "sets attributes of a Tensor"),
    "attributes of a builder": (
        ORDERED + body({"name": "os.system"}) + b"b",
        "sets attributes of collections",
    ),
    "attributes of a dictionary": (b"}}b", "sets attributes of a dict"),
    "state that is no dictionary": (
        ORDERED + b")R" + body(({}, {})) + b"b",
        "sets attributes of a OrderedDict",
    ),
    "ordered dictionary of items": (ORDERED + body(([("a", 1)],)) + b"R", "damaged"),
    "INST": (b"(iposix\nsystem\n", r"opcode INST \('posix system'\)"),
    "OBJ": (b"(" + ORDERED + b"o", "opcode OBJ"),
    "NEWOBJ": (ORDERED + b")\x81", "opcode NEWOBJ"),
    "extension registry": (b"\x82\x01", "opcode EXT1"),
    "out-of-band buffer": (b"\x97", "opcode NEXT_BUFFER"),
    "append to a tuple": (b")Na", "appends to a tuple"),
    "item of a list": (b"]K\x00Ns", "sets items of a list"),
    "item of a tensor": (tensor() + b"K\x00Ns", "sets items of a Tensor"),
    "tuple as key": (b"}" + body((1,)) + b"Ns", "a tuple as a key"),
    "list as key": (b"}]Ns", "a list as a key"),
    "odd number of items": (b"}(K\x00u", "damaged"),
    "bare type": (named("torch.FloatStorage"), "holds torch.FloatStorage"),
    "bare storage": (storage(), "holds a Storage"),
    "module outside the pickle": (storage(head="module"), "refers to 'module'"),
    "one long persistent id, many times": (body(("storage",) + (None,) * 99) + b"Q", "damaged"),
    "view of a storage": (storage(extra=body(("1", 0, 6))), "to a view"),
    "persistent id that is no tuple": (b"K\x01Q", "damaged"),
    "storage of a function": (storage(kind="torch.Size"), "damaged"),
    "one storage of two types": (
        b"(" + storage() + storage(kind="torch.IntStorage") + b"t",
        "two types",
    ),
    "key of another type": (storage(key=0), "damaged"),
    "negative number of elements": (storage(numel=-1), "damaged"),
    "parameter of a number": (named("torch._utils._rebuild_parameter") + b"(K\x01\x89NtR", "damaged"),
    "stack underflow": (b"\x87", "damaged"),
    "tuple without mark": (b"t", "damaged"),
    "unknown memo": (b"h\x07", "damaged"),
    "huge memo index": (b"r\xff\xff\xff\xffj\xfe\xff\xff\xff", "damaged"),
    "huge string": (b"X\xff\xff\xff\xff", "damaged"),
    "huger string": (b"\x8d" + b"\xff" * 7 + b"\x7f", "damaged"),
    "unknown opcode": (b"\xff", "damaged"),
    "surrogates in a name": (b"\x8c\x03\xed\xa0\x80\x8c\x01x\x93", r"refers to \\ud800\.x"),
    "newline in a name": (b"\x8c\x02a\n\x8c\x01x\x93", r"refers to a\\n\.x"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_opcodes_are_refused(tmp_path, case):
    value, message = HOSTILE[case]
    refused(archive(tmp_path / "a.pt", program(value)), message)


def test_state_of_an_ordered_dictionary_sets_nothing(tmp_path):
    state = {"_metadata": 1, "__class__": 2, "__setstate__": 3, "items": 4, "__dict__": {"a": 5}}
    value = read_torch(archive(tmp_path / "a.pt", program(ORDERED + b")R" + body(state) + b"b")))["x"]
    assert type(value) is OrderedDict and not vars(value) and not value and callable(value.items)


@pytest.mark.parametrize(
    "offset, size, stride",
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (6, (), ()),
        (0, (2, 3), (4, 1)),
        (0, (2,), (6,)),
        (2**62, (1,), (1,)),
        # These wrap around 2**64 in NumPy's own check of bounds.
        (0, (5,), (2**60,)),
        (0, (5,), (2**62,)),
        (0, (3,), (2**61,)),
        (-1, (2,), (1,)),
        (0, (-1,), (1,)),
        (5, (2,), (-1,)),
        (0, (2, 3), (1,)),
        (0, (True,), (1,)),
        (0, (2.0,), (1,)),
        (0, [6], [1]),
        (None, (6,), (1,)),
        (0, (1,) * 70, (1,) * 70),
        (0, (1,) * 70, (1,)),
        (0, (1,) * 33, (1,) * 33),
        (0, (2**40,) * 3, (0,) * 3),
    ],
)
def test_no_tensor_reaches_outside_its_storage(tmp_path, offset, size, stride):
    refused(archive(tmp_path / "a.pt", program(tensor(offset, size, stride))), "beyond its 6 stored|damaged")


@pytest.mark.parametrize(
    "offset, size, stride, expected",
    [
        (5, (), (), 5),
        (0, (2, 3), (3, 1), [[0, 1, 2], [3, 4, 5]]),
        (1, (2, 2), (1, 3), [[1, 4], [2, 5]]),
        (0, (2,), (5,), [0, 5]),
        (4, (1, 1), (2**40, 9), [[4]]),
        (9, (0, 2), (2, 1), np.zeros((0, 2))),
        (0, (2, 2), (1, 1), [[0, 1], [1, 2]]),
    ],
)
def test_tensors_within_their_storage(tmp_path, offset, size, stride, expected):
    value = read_torch(archive(tmp_path / "a.pt", program(tensor(offset, size, stride))))["x"]
    np.testing.assert_array_equal(value, np.asarray(expected, np.float32), strict=True)


@pytest.mark.parametrize(
    "members, options, message",
    [
        ({"data/0": None}, {}, "damaged"),
        ({"data/0": b"\0" * 23}, {}, "holds 23 bytes for storage '0' of 6 float32"),
        ({"data/0": b"\0" * 25}, {}, "holds 25 bytes"),
        ({"data.pkl": None}, {}, "without the one data.pkl"),
        ({"../other/data.pkl": b"."}, {}, None),
        ({"byteorder": b"middle"}, {}, "unknown byte order"),
        ({"zeros": b"\0" * 10**6}, {"compression": zipfile.ZIP_DEFLATED}, "compressed or encrypted member"),
    ],
)
def test_archives_that_differ_from_torch(tmp_path, members, options, message):
    path = archive(tmp_path / "a.pt", program(tensor()), members, **options)
    if message is None:
        assert read_torch(path)["x"].shape == (6,)
    else:
        refused(path, message)


def test_two_roots_are_refused(tmp_path):
    path = archive(tmp_path / "a.pt", program(tensor()))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("b/data.pkl", program(b"N"))
    refused(path, "without the one data.pkl")


def test_members_larger_than_the_file_are_refused(tmp_path):
    path = archive(tmp_path / "a.pt", program(tensor()))
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\x01\x02")
    raw[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(raw)
    refused(path, "zip bomb")


def test_overlapping_members_are_refused(tmp_path):
    """Many names refer to the same bytes, so a small file has a large sum of sizes."""
    path = archive(tmp_path / "a.pt", program(tensor()), {f"data/{i}": b"" for i in range(1, 40)})
    raw, shared = bytearray(path.read_bytes()), 400
    entry = raw.index(b"PK\x01\x02")
    while raw[entry : entry + 4] == b"PK\x01\x02":
        raw[entry + 20 : entry + 28] = struct.pack("<II", shared, shared)
        entry += 46 + struct.unpack_from("<H", raw, entry + 28)[0]
    path.write_bytes(raw)
    refused(path, "zip bomb")


def legacy(pickled, keys=("0",), numel=6, data=None, magic=0x1950A86A20F9469CFC6C):
    head = b"".join(pickle.dumps(v, 2) for v in (magic, 1001, {"little_endian": True}))
    data = np.arange(6, dtype=np.float32).tobytes() if data is None else data
    return head + pickled + pickle.dumps(list(keys), 2) + struct.pack("<q", numel) + data


@pytest.mark.parametrize(
    "change, message",
    [
        ({"numel": 5}, "storage '0' of 5 elements, not 6"),
        ({"numel": -1}, "of -1 elements"),
        ({"data": b"\0" * 23}, "truncated"),
        ({"keys": ("1",)}, "damaged"),
        ({"keys": ()}, "damaged"),
        ({"keys": (((),),)}, "damaged"),
        ({"magic": 7}, "not one of torch.save"),
        ({"pickled": program(named("posix.system"))}, "refers to posix.system"),
        ({"pickled": program(tensor(stored=storage(2**60)))}, "elements, not 1152921504606846976"),
    ],
)
def test_legacy_files_that_differ_from_torch(tmp_path, change, message):
    path = tmp_path / "a.pt"
    path.write_bytes(legacy(program(tensor())))
    np.testing.assert_array_equal(read_torch(path)["x"], np.arange(6, dtype=np.float32))
    path.write_bytes(legacy(**{"pickled": program(tensor()), **change}))
    refused(path, message)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04", b"\x80", b"text\n" * 9, b"\x80\x02N.", b"\x89PNG"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    refused(path, "not a PyTorch checkpoint|not one of torch.save")


def test_files_that_cannot_be_opened_are_refused(tmp_path):
    refused(tmp_path / "absent.pt", "can't be opened.*No such file")
    refused(tmp_path, "can't be opened")


@pytest.mark.parametrize("value", [b"N", b"]", b"K\x01", tensor()])
def test_only_dictionaries_are_read(tmp_path, value):
    refused(archive(tmp_path / "a.pt", b"\x80\x02" + value + b"."), "not a dictionary of tensors")


@pytest.mark.parametrize(
    "value",
    [
        b")" + b"\x85" * 200_000,
        b"]" * 200_000 + b"a" * 199_999,
        b"]q\x00h\x00a",
        b"}q\x00K\x00h\x00s",
        # Each list contains the previous list ten times.
        b"(]q\x00" + b"".join(b"](" + b"h%c" % i * 10 + b"eq%c" % (i + 1) for i in range(40)) + b"t",
        b"(" + b"N" * 1_000_001 + b"t",
    ],
    ids=["tuples", "lists", "cycle of a list", "cycle of a dictionary", "shared lists", "many"],
)
@pytest.mark.long
def test_depth_and_size_are_limited(tmp_path, value):
    refused(archive(tmp_path / "a.pt", program(value)), "nests deeper than 64 levels or holds more than 1000000")


@pytest.mark.long
def test_deep_tuples_never_reach_a_hash(tmp_path):
    """Hashing or printing a deep tuple recurses in C: it would crash the process and not raise an error."""
    deep, path = b")" + b"\x85" * 100_000, tmp_path / "a.pt"
    size = named("torch.Size") + deep + b"R"
    for value in (b"}" + deep + b"Ns", deep + b"Q", b"(" + deep + b"NNNNtQ", deep + b")R", size):
        refused(archive(path, program(value)), "damaged|as a key|calls a tuple|nests deeper")
    path.write_bytes(legacy(program(tensor())).replace(pickle.dumps(["0"], 2), b"\x80\x02](" + deep + b"e."))
    refused(path, "damaged")


def test_a_pickle_of_many_megabytes_is_cut_off(tmp_path):
    refused(archive(tmp_path / "a.pt", program(b"X\x00\x00\x00\x01" + b"a" * 2**24)), "more than 16 MiB")


def touch(value):
    """Reads every byte: an array that pointed outside its storage would crash here."""
    for child in value.values() if isinstance(value, dict) else value:
        if isinstance(child, np.ndarray):
            child.astype(np.float64).sum() if child.size < 10**6 else None
        elif isinstance(child, dict | list | tuple):
            touch(child)


def survives(path, content):
    """Returns True if the damaged file is refused and False if it is read. Any other exception fails the test."""
    path.write_bytes(content)
    try:
        with np.errstate(all="ignore"):
            touch(read_torch(path))
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return True
    return False


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_truncated_files_are_refused(tmp_path, name):
    content = (FIXTURES / name).read_bytes()
    lengths = sorted({*range(0, len(content), 97), *range(200), *range(len(content) - 200, len(content))})
    assert all(survives(tmp_path / "a.pt", content[:n]) for n in lengths)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_flipped_bytes_are_refused_or_change_numbers_only(tmp_path, name):
    content, rng = (FIXTURES / name).read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for i in rng.integers(len(content), size=rng.integers(1, 4)):
            damaged[i] ^= rng.integers(1, 256)
        survives(tmp_path / "a.pt", bytes(damaged))


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS[:2])
def test_flipped_opcodes_with_good_checksums(tmp_path, name):
    """The checksum of the archive detects most flips before the interpreter. Here the checksums are correct."""
    with zipfile.ZipFile(FIXTURES / name) as file:
        members = {n.split("/", 1)[1]: file.read(n) for n in file.namelist()}
    pickled, rng, outcomes = members.pop("data.pkl"), np.random.default_rng(1), []
    for _ in range(300):
        damaged = bytearray(pickled)
        for i in rng.integers(len(pickled), size=rng.integers(1, 4)):
            damaged[i] = rng.integers(256)
        content = archive(tmp_path / "b.pt", bytes(damaged), members).read_bytes()
        outcomes.append(survives(tmp_path / "a.pt", content))
    assert 0 < sum(outcomes) < len(outcomes)


BACKBONES = ("resnet18", "resnet34", "resnet50")


def network(backbone, clusters=10, stem="imagenet"):
    return Network(backbone, stem, 2 if backbone == "resnet18" else 1, clusters, 8, jnp.float32)


@functools.cache
def template(net):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((2, 64, 64, 3)), True))


def stored(tree):
    """Returns the opcodes of nested dictionaries with arrays for `archive`, and its members."""
    members, pieces = {}, b"}("
    for key, value in tree.items():
        if isinstance(value, np.ndarray):
            name = str(len(members))
            members[f"data/{name}"], shape = value.astype(np.float32).tobytes(), value.shape
            strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
            value = tensor(0, shape, strides, storage(value.size, key=name))
        pieces += body(key) + (value if isinstance(value, bytes) else body(value))
    return b"\x80\x02" + pieces + b"u.", members


def changed(path, **changes):
    """The network of the ResNet-18 fixture with replaced entries, and without entries that are None."""
    state = {**read_torch(FIXTURES / "cc_resnet18.tar")["net"], **changes}
    return archive(path, *stored({k: v for k, v in state.items() if v is not None}))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.long
def test_loaded_network_computes_what_torch_computed(backbone):
    """ResNet-18 is a zip with {"net": ...}. The others have the old format, a state_dict and the prefix `module.`."""
    net, expected = network(backbone), np.load(FIXTURES / "cc_outputs.npz")
    variables = load_cc(FIXTURES / f"cc_{backbone}.tar", template(net))
    images = expected["images"].astype(np.float32) / 255
    h = net.apply(variables, images, False, heads=False)
    g, c = net.apply(variables, images, False)
    z = g / np.linalg.norm(g, axis=1, keepdims=True)
    for name, value in {"h": h, "z": z, "c": c}.items():
        np.testing.assert_allclose(value, expected[f"{backbone}_{name}"], rtol=1e-4, atol=1e-5)


def test_every_variable_is_replaced_in_its_type():
    shapes = template(network("resnet18"))
    bfloat16 = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), shapes)
    for wanted in (shapes, bfloat16):
        got = load_cc(FIXTURES / "cc_resnet18.tar", wanted)
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
        assert jax.tree.all(jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), got, wanted))


def test_names_equal_those_of_the_authors():
    """The names map one to one to those of the file, for any values of the template."""
    for backbone in BACKBONES:
        tree = read_torch(FIXTURES / f"cc_{backbone}.tar")
        theirs = {k.removeprefix("module.") for k in tree.get("net", tree)}
        ours = [torch_name(path) for path in flatten_dict(template(network(backbone)))]
        assert sorted(ours) == sorted(k for k in theirs if "num_batches_tracked" not in k)


@pytest.mark.parametrize(
    "file, net, message",
    [
        (
            "resnet18",
            network("resnet18", 20),
            r"cluster_projector.2.weight is \[10, 16\], the config expects 20 clusters",
        ),
        ("resnet18", network("resnet34"), "looks like a resnet18, the config expects a resnet34"),
        ("resnet34", network("resnet50"), "looks like a resnet34, the config expects a resnet50"),
        ("resnet50", network("resnet18"), "looks like a resnet50, the config expects a resnet18"),
        (
            "resnet18",
            network("resnet18", stem="small"),
            r"resnet.conv1.weight is \[2, 3, 7, 7\], the network expects \[2, 3, 3, 3\]",
        ),
        (
            "resnet18",
            Network("resnet18", "imagenet", 4, 20, 8, jnp.float32),
            r"\d+ tensors differ in shape.*, \.\.\.",
        ),
    ],
)
def test_other_networks_are_refused(file, net, message):
    refused(FIXTURES / f"cc_{file}.tar", message, lambda path: load_cc(path, template(net)))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({}, None),
        ({"resnet.bn1.num_batches_tracked": None}, None),
        ({"resnet.bn1.weight": None}, r"1 tensors missing \(resnet.bn1.weight\)"),
        ({"resnet.fc.weight": np.zeros((2, 2))}, r"1 tensors left over \(resnet.fc.weight\)"),
        (
            {f"resnet.bn1.{n}": None for n in ("weight", "bias", "running_mean", "running_var")} | {"x": np.zeros(1)},
            r"4 tensors missing \(resnet.bn1.bias, .*, \.\.\.\), 1 tensors left over \(x\)",
        ),
        ({"resnet.bn1.weight": np.zeros((2, 1))}, r"resnet.bn1.weight is \[2, 1\], the network expects \[2\]"),
        ({"resnet.bn1.weight": np.zeros((1, 1, 2))}, r"is \[1, 1, 2\]"),
        ({"resnet.bn1.weight": 1.0}, "holds neither"),
        ({"resnet.layer3.1.conv1.weight": None}, "missing"),
        ({"resnet.layer5.0.conv1.weight": np.zeros(1)}, "left over"),
        (
            {"resnet.layer4.2.conv1.weight": np.zeros(1)},
            r"looks like a network of \[2, 2, 2, 3\] residual blocks",
        ),
        ({"net": 3}, "holds neither"),
        ({"a\nb": np.zeros(1)}, "left over"),
    ],
)
def test_every_tensor_must_fit(tmp_path, changes, message):
    path, variables = changed(tmp_path / "a.pt", **changes), template(network("resnet18"))
    if message is None:
        load_cc(path, variables)
    else:
        refused(path, message, lambda path: load_cc(path, variables))
