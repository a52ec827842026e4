"""Asks a model about a picture: ask.py MODEL.gguf PICTURE QUESTION..."""

import sys

import lxmert


def main():
    if len(sys.argv) < 4:
        sys.exit(f"usage: {sys.argv[0]} MODEL.gguf PICTURE QUESTION...")
    _, path, picture, *questions = sys.argv
    model = lxmert.Model(path)
    plan = model.plan(threads=1)
    print(f"lowering {plan['lowering']}, {plan['total']} bytes")
    session = model.session(threads=1)
    # The image is encoded once, however many questions follow.
    session.encode_pixels(lxmert.read_image(picture))
    for question in questions:
        print(question)
        for answer in session.ask(question):
            # A model's file may hold no texts; then an answer is known by its number.
            text = f"answer {answer.label}" if answer.text is None else answer.text
            print(f"  {text}  {100 * answer.softmax:.2f} %  (score {answer.logit:.4f})")


if __name__ == "__main__":
    try:
        main()
    except (lxmert.Error, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
