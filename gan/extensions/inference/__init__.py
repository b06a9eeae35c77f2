"""The inference net E of section 7: an auxiliary net that predicts z given x.

    min_E  mean_j ((E(x) - t)_j / s_j)^2,   x = G(z), z ~ p(z)

The target t is z, hidden layers of G, or both side by side, and s_j the standard deviation of its
j-th unit.  G is fixed: a promoted one that stays as it is, or (jointly) one that is trained at
the same time and to which E's gradient does not go.  What E predicts is the code of an image; G
from the lowest predicted layer on turns it into an image again, and codes of two images say how
near these are.

    nets.py      E, and what is a code of a given G
    training.py  the loss and its descent
    run.py       runs: beside a frozen generator, and beside Algorithm 1
    saved.py     what is kept: codes, reconstructions, refinement, images
    scores.py    what a run is scored by while it trains

Source: section 7, second extension, of Goodfellow et al. (2014), after the wake-sleep algorithm
(Hinton et al., 1995), "with the advantage that the inference net may be trained for a fixed
generator net after the generator net has finished training"; `inferer` of its released code,
which trains jointly, on z or on the layer `infer_layer`.
Differs: squared errors of units are divided by the variances of these, so that no layer of
larger numbers rules; a term of reconstructed training images may be added; E may see distorted
samples.
"""
