"""The command `scratchgpt`.

It stands beside the package and not in it, because whatever is in the package imports torch first, which takes
seconds: the help, the names and a misspelt command need none of it. Like a recipe it may import everything.
"""
