"""What the ImageNet classes are called: their WordNet names, and the everyday words that people search for instead."""

from __future__ import annotations

from vsearch.models.mini.train.teacher import imagenet_names

DOGS = range(151, 269)

# A word and the classes that it covers, by their numbers in ImageNet's order (ours: WordNet's own words above them
# are seldom what people say). A class may have several, the nearest first.
_WIDER: dict[str, str] = {
    "fish": "0-6 389-397", "shark": "2-4", "ray": "5-6", "bird": "7-24 80-100 127-146", "chicken": "7-8",
    "owl": "24", "eagle": "22", "parrot": "87-90", "duck": "97-98", "goose": "99", "swan": "100", "frog": "30-32",
    "salamander": "25-29", "turtle": "33-37", "lizard": "38-48", "crocodile": "49-50", "dinosaur": "51",
    "snake": "52-68", "spider": "70 72-77", "insect": "300-326", "beetle": "300-307", "butterfly": "321-326",
    "crab": "118-121 125", "lobster": "122-124", "snail": "113-115", "whale": "147-148", "seal": "149-150",
    "dog": "151-268", "puppy": "151-156 186-193 265-268", "wolf": "269-272", "wild dog": "273-275", "fox": "277-280", "cat": "281-285",
    "kitten": "281-285", "big cat": "286-293", "lion": "286 291", "tiger": "292", "leopard": "288-290 293",
    "bear": "294-297", "rabbit": "330-332", "hamster": "333 338", "squirrel": "335-336", "horse": "339",
    "pig": "341-343", "cow": "345", "buffalo": "345-347", "sheep": "348-349", "goat": "350", "deer": "351-353",
    "camel": "354", "weasel": "356-362", "monkey": "365-384", "ape": "365-369", "elephant": "101 385-386",
    "panda": "387-388", "animal": "0-397",
    "musical instrument": "401 402 420 432 486 494 513 541 546 558 566 577 579 593 594 641 642 683 684 687 699 776 822 875 881 889",
    "guitar": "402 420 546", "piano": "579 881", "drums": "541 822", "trumpet": "513 566 875",
    "car": "408 436 468 511 609 627 656 661 734 751 817", "truck": "555 569 675 717 864 867",
    "bus": "654 779 874", "train": "466 547 565 705 820 829", "bicycle": "444 671 870 880", "motorcycle": "665 670",
    "airplane": "404 895 908", "boat": "472 484 554 576 625 780 814 871 914", "ship": "403 510 628 724 913",
    "vehicle": "407 408 436 444 466 468 511 547 555 569 575 586 595 603 609 612 627 654 656 661 665 670 671 675 705 717 "
    "734 751 779 802 817 820 829 847 864 867 870 874 880",
    "tractor": "595 866", "sled": "537", "house": "425 449 580 660 663 698 853", "building": "425 449 483 497 498 538 580 624 663 668 698 727 762 832",
    "church": "497 663 668 832", "castle": "483 698", "bridge": "718 821 839 888", "tower": "437 900", "shop": "415 424 454 467 509 582 788 860 865",
    "chair": "423 559 765 857", "table": "526 532 736", "bed": "431 516 520 564", "sofa": "831", "furniture": "423 453 495 526 532 559 564 765 831 857 894",
    "lamp": "619 846 818", "clock": "409 530 531 604 826 892", "computer": "527 590 620 681 664 782", "phone": "487 528 707",
    "camera": "732 759", "television": "851 664", "gun": "413 763 764", "weapon": "413 456 471 491 657 744 763 764",
    "ball": "429 430 522 574 722 768 805 852 890", "hat": "433 439 452 515 518 560 667 793 808", "dress": "578 655 689 775",
    "clothes": "399 411 474 568 578 601 608 610 614 617 655 689 697 735 775 834 841 842 869 887 906", "shoe": "502 514 630 770 774 788",
    "swimsuit": "445 638 639 842", "bag": "414 636 728 748 797", "bottle": "440 720 737 898 901 907", "cup": "504 647 901 967 968",
    "plate": "923 809", "pot": "469 505 521 544 567 738 849 909", "tool": "477 499 587 596 606 677 740 783 784 792",
    "food": "923-969", "dessert": "927-929", "bread": "930-932", "vegetable": "936-947", "fruit": "948-957",
    "drink": "966-967 969", "coffee": "505 550 967", "mountain": "970 972 979 980", "beach": "975-978", "sea": "973 977 978",
    "diver": "983", "baseball player": "981", "flower": "984-986", "mushroom": "947 991-997", "toy": "850 865",
    "gym": "422 543 702", "sign": "919 920", "book": "917 921 454 624",
}  # fmt: skip


def class_words() -> list[tuple[list[str], list[str]]]:
    """Of each of the 1,000 classes, in ImageNet's order: its own names, and wider words, the narrowest first."""
    own = [names[:3] for names in imagenet_names("imagenet").values()]
    wider: list[list[tuple[int, str]]] = [[] for _ in own]
    for word, spans in _WIDER.items():
        covered = [i for span in spans.split() for i in _numbers(span)]
        for i in covered:
            wider[i].append((len(covered), word))
    return [(names, [word for _, word in sorted(words)]) for names, words in zip(own, wider, strict=True)]


def _numbers(span: str) -> range:
    first, _, last = span.partition("-")
    return range(int(first), int(last or first) + 1)
