"""A package that has nothing to do with torchloom's own code, as a user would install or write it."""
