"""torch.save files of torch before 0.4, of which torchvision's VGG16 is one."""

import collections
import copyreg
import pickle

import numpy as np
import pytest
import torch

from janus_jax.weights import pickles


class Old(pickle.Pickler):
    """Writes tensors and parameters as those versions did. `state`: of a parameter, 3 facts behind
    its tensor, or 5 of which the tensor is the first."""

    def __init__(self, file, state: int):
        super().__init__(file, 2)
        self.storages = []
        self.state = state

    def reducer_override(self, x):
        if isinstance(x, torch.nn.Parameter):
            if self.state == 5:
                state = (x.data, None, None, True, False)
                return copyreg.__newobj__, (torch.nn.Parameter,), state
            return torch.nn.Parameter, (x.data,), (True, False, collections.OrderedDict())
        if isinstance(x, torch.Tensor):
            self.storages.append(x)
            place = len(self.storages) - 1
            return torch._utils._rebuild_tensor, (place_of(place, x), 0, tuple(x.shape), x.stride())
        return NotImplemented

    def persistent_id(self, x):
        return x.pid if isinstance(x, place_of) else None


class place_of:
    def __init__(self, place: int, x):
        self.pid = ("storage", torch.FloatStorage, str(place), "cpu", x.numel(), None)


def save_old(values: dict, path, state: int):
    with open(path, "wb") as file:
        for head in (pickles.LEGACY, 1001, {"little_endian": True}):
            pickle.dump(head, file, 2)
        pickler = Old(file, state)
        pickler.dump(values)
        pickle.dump([str(i) for i in range(len(pickler.storages))], file, 2)
        for x in pickler.storages:
            file.write(x.numel().to_bytes(8, "little") + x.detach().numpy().tobytes())


@pytest.mark.parametrize("state", [3, 5])
def test_parameters_of_old_torch_are_read_as_torch_reads_them(tmp_path, state):
    values = {
        "plain": torch.arange(6.0).reshape(2, 3),
        "learned": torch.nn.Parameter(torch.arange(4.0) + 7),
    }
    save_old(values, tmp_path / "old.pth", state)
    want = torch.load(tmp_path / "old.pth", weights_only=state == 3)
    read, left_out = pickles.state_dict(
        tmp_path / "old.pth", pickles.read_pickle(tmp_path / "old.pth")
    )
    assert list(read) == list(values) and not left_out
    for name, x in values.items():
        assert torch.equal(want[name], x)
        assert np.array_equal(read[name].read(), x.detach().numpy())
