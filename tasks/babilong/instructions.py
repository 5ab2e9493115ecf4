"""What BABILong's `instructed` template says to each question: instruction, form of the answer, two examples; our words."""

from __future__ import annotations

ROOM = "Answer with the name of one place and nothing else."
NOTES = "Short notes {about} are scattered through the pages of a book. Only the notes matter. "
INSTRUCTIONS = {
    "qa1": (NOTES.format(about="about people going from place to place") + "Say where the person is now.", ROOM),
    "qa2": (NOTES.format(about="about people who carry things around") + "Say where the thing is now.", ROOM),
    "qa3": (
        NOTES.format(about="about people who carry things around")
        + "Say where the thing was just before it came to the place in the question.",
        ROOM,
    ),
    "qa4": (NOTES.format(about="about how places lie to one another") + "Say which place is meant.", ROOM),
    "qa5": (
        NOTES.format(about="about people who hand things to each other") + "Say who or what is meant.",
        "Answer with one name or one thing and nothing else.",
    ),
}
PEOPLE = NOTES.format(about="about people going from place to place")
CARRIED = NOTES.format(about="about people who carry things around")
YES_NO = "Answer with yes or no and nothing else."
INSTRUCTIONS |= {
    "qa6": (CARRIED + "Say whether the person is in the place now.", YES_NO),
    "qa7": (CARRIED + "Say how many things the person holds.", "Answer with none, one, two or three and nothing else."),
    "qa8": (
        CARRIED + "Say what the person holds.",
        "Answer with the things, joined by a comma without a blank, or with nothing, and with nothing else.",
    ),
    "qa9": (PEOPLE + "Say whether the person is in the place now.", YES_NO),
    "qa10": (
        PEOPLE + "Say whether the person is in the place now.",
        "Answer with yes, no, or, where the notes leave it open, maybe, and nothing else.",
    ),
    "qa11": (PEOPLE + "Say where the person is now.", ROOM),
    "qa12": (PEOPLE + "Say where the person is now.", ROOM),
    "qa13": (PEOPLE + "Say where the person is now.", ROOM),
    "qa14": (PEOPLE + "They are not in the order of time. Say where the person was just before the place asked.", ROOM),
    "qa15": (
        NOTES.format(about="about animals and what they fear") + "Say what the one in the question fears.",
        "Answer with the name of one animal, in the singular, and nothing else.",
    ),
    "qa16": (
        NOTES.format(about="about animals and their colors") + "Say which color the animal has, judged by its kind.",
        "Answer with one color and nothing else.",
    ),
    "qa17": (NOTES.format(about="about how shapes lie to one another") + "Say whether the question is right.", YES_NO),
    "qa18": (NOTES.format(about="about the sizes of things") + "Say whether the question is right.", YES_NO),
    "qa19": (
        NOTES.format(about="about how places lie to one another") + "Say which two steps lead to the place asked.",
        "Answer with the first letters of two directions, joined by a comma without a blank, and nothing else.",
    ),
    "qa20": (
        NOTES.format(about="about what people want") + "Say where the person will go, or why the person did it.",
        "Answer with one place or one reason and nothing else.",
    ),
}
EXAMPLES = {
    "qa1": (
        ("Mary moved to the office. John went to the garden.", "Where is Mary?", "office"),
        ("John moved to the kitchen. John went back to the hallway.", "Where is John?", "hallway"),
    ),
    "qa2": (
        ("Mary got the milk there. Mary went to the garden.", "Where is the milk?", "garden"),
        (
            "John went to the office. John took the apple there. John dropped the apple. John moved to the kitchen.",
            "Where is the apple?",
            "office",
        ),
    ),
    "qa3": (
        (
            "Mary got the milk. Mary went to the garden. Mary moved to the office. John went to the kitchen.",
            "Where was the milk before the office?",
            "garden",
        ),
        (
            "John took the apple. John moved to the bedroom. John went to the hallway. John left the apple there.",
            "Where was the apple before the hallway?",
            "bedroom",
        ),
    ),
    "qa4": (
        (
            "The office is north of the garden. The garden is north of the kitchen.",
            "What is the garden north of?",
            "kitchen",
        ),
        (
            "The bedroom is west of the hallway. The office is east of the hallway.",
            "What is west of the hallway?",
            "bedroom",
        ),
    ),
    "qa5": (
        ("Mary took the apple there. Mary gave the apple to Fred.", "What did Mary give to Fred?", "apple"),
        ("Jeff got the milk there. Jeff passed the milk to Bill.", "Who received the milk?", "Bill"),
    ),
}
EXAMPLES |= {
    "qa6": (
        ("Mary moved to the office. John went to the garden.", "Is Mary in the office?", "yes"),
        ("John moved to the kitchen. John got the apple there.", "Is John in the hallway?", "no"),
    ),
    "qa7": (
        ("Mary got the milk there. Mary took the apple there.", "How many objects is Mary carrying?", "two"),
        ("John got the apple there. John dropped the apple.", "How many objects is John carrying?", "none"),
    ),
    "qa8": (
        ("Mary got the milk there. Mary took the apple there.", "What is Mary carrying?", "milk,apple"),
        ("John got the apple there. John dropped the apple.", "What is John carrying?", "nothing"),
    ),
    "qa9": (
        ("Mary moved to the office. John is not in the garden.", "Is John in the garden?", "no"),
        ("Daniel is in the kitchen. John went to the garden.", "Is Daniel in the kitchen?", "yes"),
    ),
    "qa10": (
        ("Fred is either in the school or the park. Bill is in the office.", "Is Fred in the park?", "maybe"),
        ("Julie moved to the cinema. Mary went to the school.", "Is Julie in the cinema?", "yes"),
    ),
    "qa11": (
        ("Mary moved to the office. Then she went to the garden.", "Where is Mary?", "garden"),
        ("John went to the kitchen. Afterwards he moved to the hallway.", "Where is John?", "hallway"),
    ),
    "qa12": (
        ("Mary and John moved to the office. John and Daniel went to the garden.", "Where is John?", "garden"),
        ("Daniel and Sandra went to the kitchen. Mary and John moved to the hallway.", "Where is Daniel?", "kitchen"),
    ),
    "qa13": (
        ("Mary and John moved to the office. Then they went to the garden.", "Where is John?", "garden"),
        ("Daniel and Sandra went to the kitchen. After that they moved to the hallway.", "Where is Sandra?", "hallway"),
    ),
    "qa14": (
        (
            "This morning Bill went to the park. Bill moved to the school yesterday.",
            "Where was Bill before the park?",
            "school",
        ),
        (
            "Yesterday Mary went to the office. Mary moved to the cinema this morning.",
            "Where was Mary before the cinema?",
            "office",
        ),
    ),
    "qa15": (
        (
            "Mice are afraid of cats. Winona is a mouse. Cats are afraid of wolves. Emily is a cat. "
            "Sheep are afraid of mice. Wolves are afraid of sheep. Jessica is a mouse. Gertrude is a wolf.",
            "What is emily afraid of?",
            "wolf",
        ),
        (
            "Cats are afraid of mice. Mice are afraid of wolves. Wolves are afraid of sheep. Winona is a wolf. "
            "Gertrude is a cat. Sheep are afraid of wolves. Emily is a sheep. Jessica is a cat.",
            "What is winona afraid of?",
            "sheep",
        ),
    ),
    "qa16": (
        (
            "Lily is a frog. Greg is a swan. Greg is white. Lily is green. Brian is a frog. Julius is a lion. "
            "Julius is gray. Bernhard is a swan. Bernhard is white.",
            "What color is Brian?",
            "green",
        ),
        (
            "Julius is a rhino. Brian is a swan. Julius is yellow. Greg is a rhino. Brian is gray. Lily is a lion. "
            "Lily is white. Bernhard is a swan. Bernhard is gray.",
            "What color is Greg?",
            "yellow",
        ),
    ),
    "qa17": (
        (
            "The triangle is above the red square. The red square is above the blue square.",
            "Is the triangle above the blue square?",
            "yes",
        ),
        (
            "The red sphere is to the left of the triangle. The triangle is below the pink rectangle.",
            "Is the red sphere to the right of the pink rectangle?",
            "no",
        ),
    ),
    "qa18": (
        (
            "The chest fits inside the box. The chocolate fits inside the chest. The box is bigger than the suitcase. "
            "The chest fits inside the box. The suitcase is bigger than the chocolate.",
            "Is the box bigger than the chocolate?",
            "yes",
        ),
        (
            "The chest fits inside the suitcase. The chocolate fits inside the chest. "
            "The suitcase is bigger than the chest. The container is bigger than the chest. "
            "The chest fits inside the container.",
            "Does the suitcase fit in the chocolate?",
            "no",
        ),
    ),
    "qa19": (
        (
            "The garden is west of the office. The bedroom is north of the kitchen. The kitchen is west of the garden. "
            "The hallway is south of the bathroom. The hallway is east of the garden.",
            "How do you go from the bathroom to the garden?",
            "s,w",
        ),
        (
            "The bedroom is south of the hallway. The office is south of the bedroom. "
            "The kitchen is east of the hallway. The garden is west of the office. The bathroom is east of the bedroom.",
            "How do you go from the office to the hallway?",
            "n,n",
        ),
    ),
    "qa20": (
        ("Jason is thirsty. Jason went to the kitchen.", "Why did jason go to the kitchen?", "thirsty"),
        ("Yann is bored. Antoine is tired.", "Where will antoine go?", "bedroom"),
    ),
}
