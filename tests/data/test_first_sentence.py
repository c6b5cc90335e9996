"""Where the first sentence of a caption ends."""

import pytest

from janus_jax.data import generation

# "|" stands where the first sentence ends; without one it is the whole caption.
CAPTIONS = [
    # One sentence, or none that ends.
    "no end",
    "A dog.",
    "A 3.5 m cat",
    "Version 2.0 of www.example.com is shown",
    # Marks before a space, whatever follows.
    "A cat sleeps.| It purrs. It wakes.",
    "Why?| Because.",
    "What a view!| Mountains rise behind.",
    "Really?!| Yes.",
    "a dog.| it sleeps.",
    "A.|\nB",
    "A dog\non a sofa.|\nIt sleeps.",
    "A headline without a full stop|\n\nThe text below it.",
    "A 3.5 m cat.| It sleeps! Yes",
    "Plan of 1999.| 12 rooms are shown.",
    # Titles and names.
    "Mr. Smith walks.| They smile.",
    "mr. smith walks.| they smile.",
    "Portrait of Mrs. Dalloway and Dr. Watson, Jr. in London.| Both smile.",
    "St. Peter's at 3.5 p.m. in Rome.| The square is empty.",
    "The summit of Mt. Fuji.| Snow lies on it.",
    "J. K. Rowling signs a book.| Fans wait.",
    "A bust of J.S. Bach.| It is made of marble.",
    "Gen. Lee and Lt. Col. Ames ride.| The sky is grey.",
    "Martin Luther King Jr. Boulevard at night.| Cars pass.",
    "A talk by Jane Roe, Ph.D.| The room is full.",
    # Countries, firms and addresses.
    "A photo of a U.S. Navy ship.| It is grey.",
    "a u.s. navy ship.| it is grey.",
    "A map of the U.S.| The states are coloured.",
    "Washington D.C. at dawn.| Mist rises.",
    "The logo of Apple Inc. on a wall.| It is white.",
    "The logo of Apple Inc.| The wall is grey.",
    "A house on Main St. in Ohio.| Trees stand around it.",
    "A house on Main St.| It has a porch.",
    # Times, numbers, units.
    "The clock shows 5 p.m.| A man waits.",
    "The clock shows 5 p.m. EST in Rome.| It is late.",
    "A bus at 10 a.m. on Sept. 3 in Rome.| People board.",
    "Player No. 5 kicks.| The crowd cheers.",
    "No.| It is a dog.",
    "See Fig. 3 and pp. 4-5, vol. 2.| All are blue.",
    "A 6 ft. tall man and a 5 lb. fish.| Both shine.",
    "The snake is 6 ft.| It sleeps.",
    "1. A cat.| 2. A dog.",
    # Examples and lists.
    "Fruits, e.g. apples, i.e. food.| They are red.",
    "Pens, paper, etc. on a desk.| A lamp is lit.",
    "Pens, paper, etc.| Lamps shine.",
    "Cats vs. dogs.| A fight.",
    "A bowl, approx. 3 kg, by Smith et al. in clay.| Old.",
    # Ellipses.
    "Well... it sleeps.| Yes.",
    "He waits...| Then he leaves.",
    "He waits…| Then he leaves.",
    "Hello . . . world.| Bye.",
    # Quotation marks and brackets.
    'He said "Stop."| Then left.',
    'He said "Stop. Go. Run!" and left.| She stayed.',
    '"Stop!" he said.| Then he left.',
    "A sign says “Open. Come in.”| The door is shut.",
    "A dog (a pug. Not a beagle.) sits.| It barks.",
    "A dog (left).| A cat (right).",
    "(A dog.)| It barks.",
    "**A dog.**| It barks.",
    "She asks, 'Who?'| Nobody answers.",
    # Other scripts.
    "一只猫。|它在睡觉。",
    "一。| 二",
    "高さは３．５ｍです．|とても高い。",
    "他说：“停。”|然后走了。",
    "他说：“停。走。”|然后走了。",
    "价格是3.5元！！|很便宜？",
    "「止まれ。」と彼は言った。|猫が寝る。",
    "猫がいる（黒い。大きい。）。|寝ている。",
    "यह एक बिल्ली है।| वह सोती है।",
    "هل هذه قطة؟| نعم.",
    "Un gato.| ¿Duerme? Sí.",
    "Ein Hund, z.B. Nr. 5, bzw. ein Dackel.| Er schläft.",
]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_the_first_sentence_ends_where_a_reader_ends_it(caption):
    expected = caption.partition("|")[0]
    assert generation.first(f" {caption.replace('|', '')}\n") == expected
