"""The names of the data sets, each with a line about it."""

from __future__ import annotations

OWN = {
    "digits": "1,797 real handwritten digits, 8 x 8 grey, 10 classes; embedded, the default",
    "image_folder": "your images: train/<class>/*.png (or train.tar.gz, train.zip), test/...",
    "csv": "your texts: train.csv[.gz] of class,text or class,title,content, test.csv[.gz]",
    "npz": "your sequences: train.npz and test.npz with inputs [N, T, C], labels, lengths",
    "idx": "MNIST's four files, train-images-idx3-ubyte[.gz], ..., or others like them",
    "shards": "any of these as `t2aux data convert` writes them, for data larger than memory",
}

# A short list to show; every other image or text classification builder works too.
TFDS = {
    "mnist": "handwritten digits, 28 x 28 grey, 10 classes",
    "fashion_mnist": "articles of clothing, 28 x 28 grey, 10 classes",
    "kmnist": "cursive Japanese characters, 28 x 28 grey, 10 classes",
    "emnist": "handwritten letters and digits, 28 x 28 grey, 62 classes",
    "cifar10": "photographs, 32 x 32 colour, 10 classes",
    "cifar100": "photographs, 32 x 32 colour, 100 classes",
    "svhn_cropped": "house numbers, 32 x 32 colour, 10 classes",
    "stanford_dogs": "breeds of dogs, colour, 120 classes; set load.side",
    "imagenette": "photographs, colour, 10 classes; set load.side",
    "ag_news_subset": "news texts, 4 classes",
    "imdb_reviews": "film reviews, 2 classes",
    "yelp_polarity_reviews": "reviews of businesses, 2 classes",
}


def listing() -> str:
    """Returns the names, a line each, as text for a terminal."""
    width = max(map(len, (*OWN, *TFDS))) + 2

    def lines(names: dict[str, str]) -> list[str]:
        return [f"  {name:{width}}{about}" for name, about in names.items()]

    return "\n".join(
        [
            "Data sets (load.name):",
            *lines(OWN),
            "",
            "From tensorflow-datasets (`t2aux data NAME --prepare` downloads one):",
            *lines(TFDS),
            "  and any other image or text classification data set that it has, by its name.",
        ]
    )
