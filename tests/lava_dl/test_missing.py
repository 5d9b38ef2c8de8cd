import importlib
import operator
import re

import pytest

import spikestrap as ss
import spikestrap.lava_dl.bootstrap as bootstrap
import spikestrap.lava_dl.slayer as slayer

# What lava-dl's packages export, and so are there or say what is there instead.
EXPORTS = {
    "bootstrap": "Mode ann_sampler block routine",
    "bootstrap.block": "base cuba",
    "bootstrap.block.cuba": "Affine Conv ConvT Dense Flatten Input Recurrent Unpool",
    "bootstrap.block.base": "Mode AbstractBlock",
    "bootstrap.routine": "LayerMode Mode Scheduler",
    "bootstrap.ann_sampler": "AnnSampler",
    "slayer": "auto axon block classifier dendrite io loss neuron obd spike synapse utils",
    "slayer.axon": "Delay Delta delay delta",
    "slayer.block": "adrf adrf_iz alif base cuba rf rf_iz sigma_delta",
    "slayer.block.cuba": "Affine Average Conv ConvT Dense Flatten Input KWTA Pool Recurrent "
    "TimeDecimation Unpool",
    "slayer.classifier": "MovingWindow Rate",
    "slayer.loss": "SparsityEnforcer SpikeMax SpikeMoid SpikeRate SpikeTime",
    "slayer.neuron": "Dropout adrf adrf_iz alif base cuba dynamics norm rf rf_iz sigma_delta",
    "slayer.neuron.norm": "MeanOnlyBatchNorm WgtScaleBatchNorm",
    "slayer.neuron.cuba": "Neuron neuron_params",
    "slayer.utils": "Assistant LearningStat LearningStats QUANTIZE_MODE diagonal_mask dotdict "
    "event_rate filter quantize quantize_hook_fx staticproperty stats time",
    "slayer.utils.filter": "FIR FIRBank conv corr",
    "slayer.utils.time": "replicate shift",
}


@pytest.mark.parametrize("module", EXPORTS)
def test_every_export_is_there_or_says_what_is(module):
    found = importlib.import_module(f"spikestrap.lava_dl.{module}")
    for name in set(EXPORTS[module].split()) - set(dir(found)):
        with pytest.raises(ss.SpikestrapError) as error:
            getattr(found, name)
        assert str(error.value).startswith(f"{module}.{name} is not carried over: ")
        assert "\n" not in str(error.value)


def test_from_import_says_it_too():
    with pytest.raises(ss.SpikestrapError, match="event files"):
        from spikestrap.lava_dl.slayer import io  # noqa: F401


def test_statistics_by_their_module():
    from spikestrap.lava_dl.slayer.utils.stats import LearningStat, LearningStats

    assert slayer.utils.LearningStat is LearningStat
    assert slayer.utils.LearningStats is LearningStats


def test_other_names_are_plainly_not_there():
    with pytest.raises(AttributeError, match="bootstrap has no 'nothing'"):
        bootstrap.nothing  # noqa: B018
    assert not hasattr(slayer.utils, "nothing")
    with pytest.raises(ss.SpikestrapError, match="not called"):
        slayer.neuron.norm.MeanOnlyBatchNorm()


@pytest.mark.parametrize("neuron", slayer.block.__all__)
def test_blocks_to_use_instead_are_there(neuron):
    named = []
    for name in ("Affine", "ConvT", "KWTA", "Pool", "Recurrent", "Unpool"):
        try:
            getattr(getattr(slayer.block, neuron), name)
        except ss.SpikestrapError as error:
            path = re.search(r"(slayer|spikestrap)\.block\.([\w.]+)", str(error).split(": ", 1)[1])
            named.append(path[2])
            operator.attrgetter(path[2])(slayer.block if path[1] == "slayer" else ss.block)
        except AttributeError:  # lava-dl has none either
            continue
    assert {f"{neuron}.ConvT", f"{neuron}.ComplexConvT"} & set(named)
    assert "Upsample" in named
