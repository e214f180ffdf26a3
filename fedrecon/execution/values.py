"""The values of TFF's types inside the in-process runtime, and the conversions in and out.

| type      | value                                                                    |
|-----------|--------------------------------------------------------------------------|
| tensor    | `tf.Tensor`                                                              |
| struct    | `tuple`; the names are in the type                                       |
| sequence  | `FreshDataset`                                                           |
| federated | `Placed`                                                                 |
| function  | a Python callable of one argument, or of none                            |

A TensorFlow function takes and returns tensors only: `flatten` takes a value apart into tensors,
and `unflatten` puts it together again.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.compiler import array
from tensorflow_federated.python.core.impl.types import type_conversions
from tensorflow_federated.python.core.impl.utils import tensorflow_utils

from fedrecon.execution.arrays import as_array, is_on_host, tensor_of
from fedrecon.execution.datasets import FreshDataset


@dataclasses.dataclass(frozen=True)
class Placed:
    """A value of a federated type.

    Attributes:
      members: The values of the clients, or one value that all clients have, or the server's value.
      all_equal: Whether there is one value for all.
    """

    members: list
    all_equal: bool

    def at(self, index: int) -> Any:
        """Returns the member of a client, or of the server."""
        return self.members[0 if self.all_equal else index]


class Arguments:
    """Converts the arguments of a call.

    Attributes:
      num_clients: The number of clients of the arguments converted so far; None if none is placed
        at clients.
    """

    def __init__(self) -> None:
        self.num_clients: int | None = None

    def take(self, value: Any, type_spec: tff.Type, name: str) -> Any:
        """Returns the inner form of `value`.

        Args:
          value: Anything that TFF's stock runtime takes for this type.
          type_spec: The type wanted.
          name: The name of the value in errors.

        Raises:
          TypeError: If the value is not of the type.
          ValueError: If two values have different numbers of clients.
        """
        if isinstance(type_spec, tff.TensorType):
            return _tensor(value, type_spec, name)
        if isinstance(type_spec, tff.StructType):
            return self._struct(value, type_spec, name)
        if isinstance(type_spec, tff.SequenceType):
            return _dataset(value, type_spec, name)
        if isinstance(type_spec, tff.FederatedType):
            return self._placed(value, type_spec, name)
        raise TypeError(f"{name}: a value of type {type_spec} cannot be passed to this runtime.")

    def _struct(self, value, type_spec, name):
        given = _elements(value)
        if given is None:
            raise TypeError(f"{name}: expected {type_spec}, found {type(value)}.")
        wanted = tff.structure.to_elements(type_spec)
        given_names = [key for key, _ in given]
        wanted_names = [key for key, _ in wanted]
        if len(given) != len(wanted):
            raise TypeError(
                f"{name}: expected the {len(wanted)} elements of {type_spec}, found {len(given)}."
            )
        if given_names != wanted_names and None not in given_names:
            if set(given_names) != set(wanted_names):
                raise TypeError(
                    f"{name}: expected the elements {', '.join(map(str, wanted_names))}, found "
                    f"{', '.join(given_names)}."
                )
            by_name = dict(given)  # The order of a dictionary says nothing.
            given = [(key, by_name[key]) for key in wanted_names]
        return tuple(
            self.take(element, element_type, f"{name}.{index if key is None else key}")
            for index, ((key, element_type), (_, element)) in enumerate(zip(wanted, given))
        )

    def _placed(self, value, type_spec, name):
        if type_spec.all_equal:
            return Placed([self.take(value, type_spec.member, name)], all_equal=True)
        if not isinstance(value, (list, tuple)):
            raise TypeError(
                f"{name}: expected a list with a value for each client, found {type(value)}."
            )
        if self.num_clients not in (None, len(value)):
            raise ValueError(  # It starts with the words of TFF's.
                f"Conflicting cardinalities for {type_spec.placement}: {len(value)} vs "
                f"{self.num_clients} ({name} has {len(value)} clients, but other arguments have "
                f"{self.num_clients})."
            )
        self.num_clients = len(value)
        return Placed(
            [
                self.take(member, type_spec.member, f"{name}[{index}]")
                for index, member in enumerate(value)
            ],
            all_equal=False,
        )


def _elements(value) -> list[tuple[str | None, Any]] | None:
    """Returns the names and elements of a container; None if the value is no container."""
    if isinstance(value, tff.structure.Struct):
        return tff.structure.to_elements(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value))
    if isinstance(value, (tuple, list)):
        return [(None, element) for element in value]
    if isinstance(value, Mapping):
        return list(value.items())
    if attrs.has(type(value)):
        return list(attrs.asdict(value, recurse=False).items())
    return None


def _has_shape(shape: tf.TensorShape, wanted: Sequence[int | None] | None) -> bool:
    if wanted is None:
        return True
    sizes = zip(shape, wanted)
    return len(shape) == len(wanted) and all(size in (found, None) for found, size in sizes)


def _tensor(value, type_spec, name):
    dtype = tf.as_dtype(type_spec.dtype)
    if isinstance(value, tf.Variable):
        value = value.read_value()
    elif isinstance(value, np.ndarray):
        shared = tensor_of(value)
        value = value if shared is None else shared
    if isinstance(value, tf.Tensor):
        fits = value.dtype == dtype
        tensor = value
    else:
        if not isinstance(value, (np.ndarray, np.generic)):
            value = _array(value, type_spec, name)
        fits = array.is_compatible_dtype(value, type_spec.dtype.type)
        # A copy: TensorFlow would go on reading an array that the caller changes.
        tensor = tf.constant(value, dtype) if fits else value
    if not fits or not _has_shape(tensor.shape, type_spec.shape):
        found = f"{tf.as_dtype(tensor.dtype).name}{list(tensor.shape)}"
        raise TypeError(f"{name}: expected {type_spec}, found {found}.")
    return tensor


def _array(value, type_spec, name):
    """Returns a number, string or list of them as an array, in the type's dtype if it fits."""
    flat = tf.nest.flatten(value)
    if not all(
        isinstance(entry, (bool, int, float, complex, str, bytes, np.generic, np.ndarray))
        for entry in flat
    ):
        raise TypeError(f"{name}: expected {type_spec}, found {type(value)}.")
    if all(array.is_compatible_dtype(entry, type_spec.dtype.type) for entry in flat):
        dtype = object if type_spec.dtype.type is np.str_ else type_spec.dtype
        return np.asarray(value, dtype)
    return np.asarray(value)


def _dataset(value, type_spec, name):
    if isinstance(value, list):
        value = tensorflow_utils.make_data_set_from_elements(None, value, type_spec.element)
    if not isinstance(value, tf.data.Dataset):
        raise TypeError(f"{name}: expected a tf.data.Dataset, found {type(value)}.")
    element_type = tff.types.tensorflow_to_type(value.element_spec)
    if not type_spec.element.is_assignable_from(element_type):
        raise TypeError(
            f"{name}: expected a dataset of {type_spec.element}, found one of {element_type}."
        )
    return FreshDataset.of_argument(value)


def elements_of(dataset: FreshDataset, type_spec: tff.Type) -> Iterator[Any]:
    """Yields the elements of a dataset; `type_spec` is the type of an element."""
    for element in dataset.dataset():
        yield Arguments().take(element, type_spec, "element")


def make_dataset(elements: list, type_spec: tff.Type) -> FreshDataset:
    """Returns a dataset of these elements; `type_spec` is the type of an element."""
    plain = [result(element, type_spec) for element in elements]
    return FreshDataset(tensorflow_utils.make_data_set_from_elements(None, plain, type_spec))


def result(
    value: Any,
    type_spec: tff.Type,
    num_clients: int = 0,
    *,
    stays_on_gpu: bool = False,
    first_stays_on_gpu: bool = False,
) -> Any:
    """Returns a value in the form that the caller of a computation gets, which is TFF's.

    Tensors become read-only arrays of NumPy, and scalars NumPy's scalars (see `arrays`). Structs
    become the containers of the type. A value placed at clients becomes a list unless it is all
    equal.

    Args:
      value: The inner form.
      type_spec: Its type.
      num_clients: How many clients there are.
      stays_on_gpu: Whether arrays on a GPU stay tensors there, instead of being copied from it.
      first_stays_on_gpu: The same for the first element of a struct.
    """
    if isinstance(type_spec, tff.FederatedType):
        member = type_spec.member
        if type_spec.all_equal:
            return result(value.at(0), member, stays_on_gpu=stays_on_gpu)
        return [result(value.at(index), member) for index in range(num_clients)]
    if isinstance(type_spec, tff.StructType):
        names = [name for name, _ in tff.structure.iter_elements(type_spec)]
        elements = [
            result(
                element,
                element_type,
                num_clients,
                stays_on_gpu=stays_on_gpu or (first_stays_on_gpu and index == 0),
            )
            for index, (element, element_type) in enumerate(zip(value, type_spec))
        ]
        return _contain(names, elements, type_spec)
    if isinstance(type_spec, tff.SequenceType):
        return value.dataset()
    if stays_on_gpu and not is_on_host(value) and type_spec.shape != ():
        return value
    return as_array(value)


def _contain(names, elements, type_spec):
    container = type_spec.python_container
    num_named = sum(name is not None for name in names)
    # The usual containers, for speed. TFF makes the others and refuses a type without a container.
    if num_named == 0 and container in (None, list, tuple):
        return (container or tuple)(elements)
    if num_named == len(names) and container in (None, collections.OrderedDict):
        return collections.OrderedDict(zip(names, elements))
    if num_named == len(names) and hasattr(container, "_fields"):
        return container(**dict(zip(names, elements)))
    struct = tff.structure.Struct(zip(names, elements))
    return tff.types.type_to_py_container(struct, type_spec)


def tensor_specs(type_spec: tff.Type, num_clients: int = 0) -> list[tf.TensorSpec]:
    """Returns the specs of the tensors that `flatten` returns for this type."""
    if isinstance(type_spec, tff.FederatedType):
        specs = tensor_specs(type_spec.member, num_clients)
        return specs if type_spec.all_equal else specs * num_clients
    if isinstance(type_spec, tff.StructType):
        return [spec for element in type_spec for spec in tensor_specs(element, num_clients)]
    if isinstance(type_spec, tff.SequenceType):
        return [tf.TensorSpec([], tf.variant)]
    return [tf.TensorSpec(type_spec.shape, tf.as_dtype(type_spec.dtype))]


def flatten(value: Any, type_spec: tff.Type, num_clients: int = 0) -> list[tf.Tensor]:
    """Returns the tensors of a value; a dataset is a variant tensor."""
    if isinstance(type_spec, tff.FederatedType):
        count = 1 if type_spec.all_equal else num_clients
        return [t for i in range(count) for t in flatten(value.at(i), type_spec.member)]
    if isinstance(type_spec, tff.StructType):
        pairs = zip(value, type_spec)
        return [t for element, of in pairs for t in flatten(element, of, num_clients)]
    if isinstance(type_spec, tff.SequenceType):
        return [value.variant()]
    return [value]


def unflatten(tensors: Iterator[tf.Tensor], type_spec: tff.Type, num_clients: int = 0) -> Any:
    """Returns the value that `flatten` took apart into `tensors`."""
    if isinstance(type_spec, tff.FederatedType):
        count = 1 if type_spec.all_equal else num_clients
        members = [unflatten(tensors, type_spec.member) for _ in range(count)]
        return Placed(members, type_spec.all_equal)
    if isinstance(type_spec, tff.StructType):
        return tuple(unflatten(tensors, element_type, num_clients) for element_type in type_spec)
    if isinstance(type_spec, tff.SequenceType):
        structure = type_conversions.type_to_tf_structure(type_spec.element)
        return FreshDataset(tf.data.experimental.from_variant(next(tensors), structure))
    return next(tensors)
