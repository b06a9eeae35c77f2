"""Where this system departs from the paper and its released code: README's list, from 1 on."""

DEVIATIONS: tuple[str, ...] = (
    (
        "Algorithm 1 alternates (`train.update_order: alternating`, the default); the "
        "released code updates both nets at once from the same fakes and dropout masks, which "
        "the preset `mnist` follows (`simultaneous`, and D's loss halved). On the nets of "
        "`quick` the released order has a Fréchet distance of 49.4 ± 3.7 on validation images "
        "and 166.3 nats, Algorithm 1's 45.2 ± 0.4 and 169.5 (`gan train quick --set "
        "train.update_order=simultaneous`, seeds 0 to 2, ± standard deviation)."
    ),
    (
        "G descends -log D(G(z)) (section 3), as the released code does; "
        "`train.generator_loss: minimax` is equation 1. On the nets of `quick` equation 1 "
        "does better: 34.7 ± 1.3 and 179.5 nats (`gan train quick --set "
        "train.generator_loss=minimax`, seeds 0 to 2)."
    ),
    (
        "The paper's stopping point on MNIST is not published. Trials stop at "
        "`train.n_steps`, and a trial's best checkpoint by validation score counts. It was "
        "the last one in each of the four runs of a GAN that stand beside the rivals."
    ),
    (
        "Momentum grows with every update rather than once an epoch, and the learning rate "
        "multiplies the velocity when it is applied; for k > 1 G's schedules go by G's own "
        "updates (`gan/optimisers.py`). What that changes was not measured."
    ),
    (
        "The preset `quick` is not the paper's net: G 512-512 with batch norm, D 240-240 "
        "maxout of two pieces, Adam, an exponential average of G. It is there to give digits "
        "in minutes."
    ),
    (
        "The Parzen score is computed in float64 with one matrix product for all widths; it "
        "equals the broadcast to 1e-9 relative."
    ),
    (
        "Dropout probabilities are rounded to multiples of 2^-16, with the exact inverse as "
        "the scale. A probability is off by 2^-17 at the most."
    ),
    (
        "Inference net: squared errors of units of a code are divided by their variances over "
        "samples (the released `inferer` sums plain squares), and E sees samples that are "
        "turned, slanted, zoomed and shifted: knowledge of images that the "
        "permutation-invariant nets of Donahue et al. (2017) have not. Without it no setting "
        "that was tried came above raw pixels on validation."
    ),
    (
        "The shared model's G descends two strictly proper scores beside the game: the energy "
        "score of two completions of one image (Gneiting and Raftery, 2007) and the "
        "cross-entropy of the label given the visible pixels. Both are least where the game "
        "has its equilibrium, so neither makes G forget its noise as a squared error does. A "
        "hidden label is drawn before the hidden pixels, and its draw passes no gradient on. "
        "Its encoder begins with two convolutions."
    ),
    (
        "Feature matching: G's output begins at the mean image, D's weights with norm 1 "
        "(`semi_supervised.init_from_data` has the source's data-dependent scales), the noise "
        "of hidden layers is .2 and not .5, the step size falls linearly to 0 over the second "
        "half, the unlabelled images are the rest of train[:50000] (the source: all 60,000, "
        "the labelled ones among them), and consistency under distortions is added: knowledge "
        "of images that the permutation-invariant nets of the source have not."
    ),
    (
        "Learned priors: a stack's output covers the support of the generator's prior and "
        "begins as the identity (the release: a sigmoid with bias -2 and random weights: "
        "`learned_prior.output=sigmoid`, `output_bias=-2`, `begin=random`, as `tfd_prior` has "
        "them). A mixture's components have a fixed share of the variance in place of "
        "DeLiGAN's penalty. Rejection is resampling among a fixed number of candidates; D "
        "learns from the prior itself."
    ),
    (
        "CIFAR-10: the stopping point is not published, and the presets take 20,000 updates. "
        "Samples become pixels by the mean brightness and contrast of the training images, "
        "where the release showed them scaled by their largest value."
    ),
    (
        "The rivals have the sizes, noise and chain lengths of their presets, chosen on "
        "validation images: what the rows of Table 1 were run with is not published in full. "
        "Their samples are means of pixels given the layer above, not draws of black and "
        "white, and the width of the window is chosen for each, where the deep GSN's was a "
        "fixed one. That explains much of what they have above the published scores: real "
        "images have 241 nats, made black and white 113."
    ),
    (
        "The preset `table1` is not the paper's net either: z has 15 Gaussian coordinates, G "
        "has batch norm, Adam has no momentum (beta1 = 0), products are bfloat16, and what is "
        "sampled is an exponential average of G over some 3,000 updates. The average is what "
        "lifts its Parzen score, at the price of some sharpness: after 7,500 updates a decay "
        "of .9995 has 214.0 nats on validation images and a Fréchet distance of 5.3, .9997 "
        "has 238.4 and 6.3, .9998 has 268.1 and 10.1 (`gan train table1 --set "
        "train.average_decay=0.9995` and so on, seed 0)."
    ),
    (
        "TFD: an epoch of the release, whose minibatches are not counted in the paper, is "
        "taken for 1,000 minibatches."
    ),
)
