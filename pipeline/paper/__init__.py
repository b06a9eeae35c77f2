"""The whole paper held against this system: `gan paper` trains, scores and writes one page.

* `subjects.py`: what is trained, and the number or picture of the paper that it stands beside
* `parts.py`: a piece of the work, done once in a process of its own
* `difficulties.py`: Table 2 of the paper, and where this system shows each of its cells
* `deviations.py`: where this system departs from the paper
* `make.py`: all parts, then the page, then the MLflow run
"""
