"""Names of the metrics: quantity_split[_stat], as a run's history, a table and a report show them.

Losses and log-likelihoods are in nats; losses and means of D are averages over the updates since
the last report.  `fine` marks a Parzen window whose width was chosen on the fine grid rather than
on the ten widths of the released code; `fresh` the winner's score on other samples than those that
made it the winner, where its run has the score on these by the same name without `fresh`.
"""

D_LOSS = "d_loss"
"""-V(D, G) of equation 1."""
G_LOSS = "g_loss"
D_REAL_MEAN = "d_real_mean"
"""Mean of D(x) over training images, with dropout, in [0, 1]."""
D_FAKE_MEAN = "d_fake_mean"
"""Mean of D(G(z)) over samples of the same updates of D, in [0, 1]."""

ENERGY_SCORE = "energy_score"
"""Of two completions of each training image by a shared model, in units of the pixels."""
LABEL_CROSS_ENTROPY = "label_cross_entropy"
"""Of the labels of training images given their visible pixels, nats."""
LABELLED_LOSS = "labelled_loss"
"""Cross-entropy of a classifier's classes on its labelled images, with noise, in nats."""
UNLABELLED_LOSS = "unlabelled_loss"
"""Half the cross-entropy of "image" on unlabelled images and of "fake" on fakes, in nats."""
FEATURE_LOSS = "feature_loss"
"""Mean squared difference of the mean features of unlabelled images and of fakes."""
CONSISTENCY_LOSS = "consistency_loss"
"""Cross-entropy of a classifier on distorted copies, given what it says of the images, in nats."""

CODE_ERROR = "code_error"
"""Of an inference net: mean squared error of the codes of samples, in variances of a unit."""
RECONSTRUCTION_ERROR = "reconstruction_error"
"""Mean of |G(E(x)) - x|^2 of training images, as a share of these images' variance; 0 where an
inference net is not taught by it."""

KL_NATS = "kl_nats"
"""Of a variational autoencoder: KL(q(z|x) || p(z)), mean over training images."""
RECONSTRUCTION_NATS = "reconstruction_nats"
"""Of the same: -log p(x|z) of pixels as probabilities, z drawn from q(z|x)."""
LAYER_RECONSTRUCTION_NATS = "layer{layer}_reconstruction_nats"
"""Of a layer of a stacked autoencoder, counted from 1, while it is trained: cross-entropy of its
inputs as probabilities, mean over training images."""
LAYER_CONTRACTION = "layer{layer}_contraction"
"""Of the same: squared Frobenius norm of the encoder's Jacobian."""
WALKBACK_NATS = "walkback_nats"
"""Of a generative stochastic network: -log p(x) of pixels as probabilities, mean over the
transitions of walkback and training images."""
FREE_ENERGY_GAP_NATS = "free_energy_gap_nats"
"""Of the restricted Boltzmann machine in training: mean free energy of its minibatch less that of
its chains; around 0 when both are alike."""
ENERGY_GAP_NATS = "energy_gap_nats"
"""Of a deep Boltzmann machine whose layers are trained together: the same of energies, the hidden
units of the minibatch by mean field."""

IMAGES_SEEN = "images_seen"
"""Every report has it, so its history says which steps were logged."""
IMAGES_PER_SECOND = "images_per_second"
LEARNING_RATE = "learning_rate"

PARZEN_LL_VALID = "parzen_ll_valid"
PARZEN_LL_VALID_SE = "parzen_ll_valid_se"
PARZEN_SIGMA = "parzen_sigma"
"""Width of the Parzen window, chosen on validation images."""
PARZEN_LL_VALID_FRESH = "parzen_ll_valid_fresh"
PARZEN_LL_VALID_FRESH_SE = "parzen_ll_valid_fresh_se"
PARZEN_SIGMA_FRESH = "parzen_sigma_fresh"
PARZEN_LL_TEST = "parzen_ll_test"
PARZEN_LL_TEST_SE = "parzen_ll_test_se"
PARZEN_LL_VALID_FINE = "parzen_ll_valid_fine"
PARZEN_LL_TEST_FINE = "parzen_ll_test_fine"
PARZEN_SIGMA_FINE = "parzen_sigma_fine"
PARZEN_LL_TEST_BALANCED = "parzen_ll_test_balanced"
"""Of as many samples of each class of a conditional generator."""
PARZEN_LL_TEST_BALANCED_SE = "parzen_ll_test_balanced_se"

FRECHET_DISTANCE_VALID = "frechet_distance_valid"
"""Between validation images and samples, in the feature space of the data set's extractor."""
FRECHET_DISTANCE_VALID_SE = "frechet_distance_valid_se"
FRECHET_DISTANCE_VALID_FRESH = "frechet_distance_valid_fresh"
FRECHET_DISTANCE_VALID_FRESH_SE = "frechet_distance_valid_fresh_se"
FRECHET_DISTANCE_TEST = "frechet_distance_test"
FRECHET_DISTANCE_TEST_SE = "frechet_distance_test_se"
TRAINING_COVERAGE_VALID = "training_coverage_valid"
"""Share of validation images near a sample, in the same space, step by step."""
TRAINING_COVERAGE_VALID_SE = "training_coverage_valid_se"

COMPLETION_LL_VALID = "completion_ll_valid"
"""Of hidden pixels given the visible ones, by a shared model, nats a hidden pixel: the mean over
images and groups of masks; see `gan.evaluation.completion`."""
COMPLETION_LL_VALID_SE = "completion_ll_valid_se"
COMPLETION_LL_VALID_FRESH = "completion_ll_valid_fresh"
COMPLETION_LL_VALID_FRESH_SE = "completion_ll_valid_fresh_se"
CLASSIFICATION_ERROR_VALID = "classification_error_valid"
"""Share of images whose class is not the most probable one given all pixels."""
CLASSIFICATION_ERROR_VALID_SE = "classification_error_valid_se"
FEW_LABELS_NATS = "few_labels_nats"
"""Cross-entropy of a classifier on the few images by whose labels it was trained, no noise."""
FEW_LABELS_NATS_SE = "few_labels_nats_se"
FEW_LABELS_ACCURACY = "few_labels_accuracy"
"""Share of these images that are classified rightly."""
CLASSIFICATION_ERROR_TEST = "classification_error_test"
CLASSIFICATION_ERROR_TEST_SE = "classification_error_test_se"
SUPERVISED_ERROR_TEST = "supervised_error_test"
"""Share of test images that the D of feature matching classifies wrongly which was trained on the
same labels alone."""
SUPERVISED_ERROR_TEST_SE = "supervised_error_test_se"

NEAREST_ACCURACY_VALID = "nearest_accuracy_valid"
"""Share of validation images whose nearest training image, by the codes of an inference net, is of
their class."""
NEAREST_ACCURACY_VALID_SE = "nearest_accuracy_valid_se"
RECONSTRUCTION_ERROR_VALID = "reconstruction_error_valid"
"""Mean of (G(E(x)) - x)^2 over pixels and validation images."""
RECONSTRUCTION_ERROR_VALID_SE = "reconstruction_error_valid_se"
NEAREST_ACCURACY_TEST = "nearest_accuracy_test"
RECONSTRUCTION_ERROR_TEST = "reconstruction_error_test"
