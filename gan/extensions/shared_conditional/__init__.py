"""One shared model for all conditionals p(x_S | x_not S), the label one of the variables.

G is given a random mask, the pixels that it leaves visible, the label (visible or not) and noise;
it fills in the rest.  One net then completes any part of an image, draws images of a class (the
label alone is visible) or of any (nothing is), and classifies (all pixels are, the label is not).

    nets.py       G and D: how a label and hidden pixels are drawn, and what D sees
    training.py   the game, and the two proper scores that G descends beside it
    saved.py      what is kept: completions, classes, images
    scores.py     what a run is scored by while it trains

Source: section 7, third extension, of Goodfellow et al. (2014), which trains a family of
conditional models that share parameters, as of Goodfellow et al. (2013), "Multi-Prediction Deep
Boltzmann Machines".
"""
