"""`python -m t2aux` is the program `t2aux`."""

from t2aux.cli.main import main

main()
