"""`python -m benchmarks`: the `fourfold` command."""

from fourfold import main

if __name__ == "__main__":
    main()
