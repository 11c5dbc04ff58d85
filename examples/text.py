"""Is a review good or bad? Sentences become numbers in Dataset.map while the model trains.

Run: python examples/text.py. The reviews are made of word lists; "not" turns the next word around,
so the words alone do not tell: the vocabulary holds pairs of words too (`ngrams=2`).
"""

from __future__ import annotations

import random

import numpy as np

import graphnn as tf
from graphnn import keras
from graphnn.keras.layers import Dense, Embedding, TextVectorization

GOOD = "great lovely charming clever moving funny superb fresh gripping warm".split()
BAD = "dull awful clumsy boring weak stale noisy hollow messy cold".split()
THINGS = "plot cast script music ending dialogue story camera pace hero".split()
OPENERS = ["Honestly,", "I thought", "For me", "To be fair,", "My friends say", "Sadly or not,"]
CLOSERS = ["See for yourself.", "That is all!", "I saw it twice.", "What a night...", ""]
LENGTH = 40
BATCH = 32


def make_review(rng: random.Random) -> tuple[str, int]:
    """A review of a film, and 1 if most of what it says is good."""
    score, parts = 0, []
    for thing in rng.sample(THINGS, 3):
        good, negated = rng.random() < 0.5, rng.random() < 0.4
        word = rng.choice(GOOD if good else BAD)
        score += 1 if good != negated else -1
        parts.append(f"the {thing} was {'not ' if negated else ''}{word}")
    text = f"{rng.choice(OPENERS)} {', '.join(parts[:2])} and {parts[2]}. {rng.choice(CLOSERS)}"
    return text, int(score > 0)


def make_reviews(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Texts and labels."""
    rng = random.Random(seed)
    texts, labels = zip(*(make_review(rng) for _ in range(count)), strict=True)
    return np.array(texts), np.array(labels, "float32")


def main() -> None:
    """Learn the vocabulary, then the model, then judge new sentences."""
    keras.utils.set_random_seed(0)
    texts, labels = make_reviews(3000, seed=1)
    vectorizer = TextVectorization(ngrams=2, output_sequence_length=LENGTH)
    vectorizer.adapt(texts)
    print(f"'{texts[0]}' is {'good' if labels[0] else 'bad'}")
    print(f"vocabulary: {vectorizer.vocabulary_size()} words and pairs of words")

    def batches(texts: np.ndarray, labels: np.ndarray) -> tf.data.Dataset:
        pairs = tf.data.Dataset.from_tensor_slices((texts, labels)).shuffle(1000).batch(BATCH)
        numbers = pairs.map(lambda x, y: (vectorizer(x), y), num_parallel_calls=tf.data.AUTOTUNE)
        return numbers.prefetch(2)

    inputs = keras.Input(shape=(None,), dtype="int64")
    x = Embedding(vectorizer.vocabulary_size(), 16)(inputs)
    x = tf.reduce_mean(x, axis=1)
    outputs = Dense(1, activation="sigmoid")(x)
    model = keras.Model(inputs, outputs)
    rate = keras.optimizers.Adam(learning_rate=0.01)
    model.compile(optimizer=rate, loss="binary_crossentropy", metrics=["accuracy"])
    model.fit(batches(texts, labels), epochs=6, verbose=2)

    _, accuracy = model.evaluate(batches(*make_reviews(500, seed=2)), verbose=0)
    print(f"accuracy on new reviews: {accuracy:.1%}")
    for text in ("The cast was great, the music was funny", "The cast was not great, not funny"):
        good = float(model.predict(vectorizer([text]), verbose=0)[0, 0])
        print(f"{text!r}: good with probability {good:.2f}")


if __name__ == "__main__":
    main()
