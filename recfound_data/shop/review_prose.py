"""The words of reviews: sentences for each number of stars, so that a review's text agrees with its rating."""

SUMMARIES: tuple[tuple[str, ...], ...] = (
    ("Broke at once", "Waste of money", "Do not buy", "Terrible", "Sent it straight back", "One Star"),
    ("Disappointing", "Not what I hoped for", "Two Stars", "Expected more", "Weak all over", "Hardly worth it"),
    ("It is fine", "Average", "Three Stars", "Some good, some bad", "Does the job, barely", "So so"),
    ("Good, with one flaw", "Four Stars", "Nearly perfect", "Happy with it", "Solid choice", "Works well"),
    ("Five Stars", "Love it", "Perfect", "Could not be happier", "Best I have owned", "Wonderful"),
)

OPENINGS: tuple[tuple[str, ...], ...] = (
    (
        "This was awful from the moment I opened the box.",
        "Complete junk, and I want my money back.",
        "I regret buying this more than anything else this year.",
        "It fell apart within a week.",
        "Horrible quality and worse service.",
        "Useless.",
    ),
    (
        "I wanted to like this but it let me down.",
        "Below what I expected at this price.",
        "It works on some days and fails on most.",
        "Poorly finished and not very useful.",
        "Rather disappointed with this one.",
        "Not great.",
    ),
    (
        "It is all right, neither good nor bad.",
        "Middle of the road in every way.",
        "Acceptable for the price and nothing more.",
        "I have mixed feelings after a month.",
        "Some parts please me and others annoy me.",
        "Okay.",
    ),
    (
        "Very good overall, though not quite flawless.",
        "I like it a lot apart from one small thing.",
        "Pleased with this purchase on the whole.",
        "Good quality and quick to arrive.",
        "Works well nearly all of the time.",
        "Really good.",
    ),
    (
        "Absolutely love this and use it every single day.",
        "Perfect in every way I can think of.",
        "I could not be happier with what I got.",
        "Excellent quality, far above my expectations.",
        "Fantastic, I have already told all my friends.",
        "Great!",
    ),
)

DETAILS: tuple[tuple[str, ...], ...] = (
    (
        "The {noun} snapped the first time I used it.",
        "My {noun} came broken and nobody answered my complaints.",
        "Never have I seen a worse {noun}.",
        "The {noun} smells of glue and ended up in the bin.",
    ),
    (
        "The {noun} feels flimsy and already shows wear.",
        "As {noun} quality goes, this is on the poor side.",
        "My old {noun} was better in almost every way.",
        "The {noun} is smaller and weaker than the pictures suggest.",
    ),
    (
        "The {noun} does its job but feels ordinary.",
        "I have seen a better {noun} and a worse one.",
        "The {noun} is usable once you accept its limits.",
        "Half of me would keep the {noun}, half would return it.",
    ),
    (
        "The {noun} is well made even if the finish could be nicer.",
        "I would buy the {noun} again, perhaps in another colour.",
        "A good {noun}, only the instructions were unclear.",
        "The {noun} does nearly everything I wanted.",
    ),
    (
        "The {noun} is beautifully made and a joy to use.",
        "I have never owned a better {noun}.",
        "This {noun} is worth every cent and then some.",
        "The {noun} works flawlessly and looks stunning.",
    ),
)

FACTS: tuple[str, ...] = (
    "I bought it for {use}.",
    "We needed this {noun} for {use}.",
    "It replaces the {noun} that I had for ten years.",
    "My sister picked it out for {use}.",
    "I have used it for {use} since the spring.",
)
"""What any review may say, whatever its rating."""

CLOSINGS: tuple[tuple[str, ...], ...] = (
    ("Stay away.", "Zero stars if I could.", "Avoid this seller.", "I am furious."),
    ("I will look elsewhere next time.", "Not again.", "Sadly it goes back.", "Save up for a better one."),
    ("Three stars seem fair.", "You get what you pay for.", "I may or may not keep it.", "Decide for yourself."),
    ("Recommended with a small reservation.", "A solid four.", "I would mostly recommend it.", "Almost there."),
    ("Highly recommended!", "Buy it, you will be delighted.", "Ten out of ten.", "I am ordering a second one."),
)

CONTACTS: tuple[str, ...] = (
    "Write to {box}@example.com if you want the photos.",
    "Call me at (303) 555-01{number:02d} for the spare one.",
)

TENURES: tuple[str, ...] = (
    "It came after {n} days.",
    "I have had it for {n} weeks.",
    "I looked at {n} others first.",
    "Mine is {n} months old.",
)
FOR_WHOM: tuple[str, ...] = (
    "It was for my {who}, who is {age}.",
    "My {who} is {age} and tried it first.",
    "Chosen by my {age} year old {who}.",
)
RELATIVES: tuple[str, ...] = ("nephew", "aunt", "father", "niece", "cousin", "neighbour", "partner", "mother")
"""With the numbers, enough different sentences that two of ten million reviews seldom read the same."""
