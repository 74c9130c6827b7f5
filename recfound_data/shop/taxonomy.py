"""What the shop sells: departments, categories, kinds in purchase order, and the words shoppers use for them.

A category's kinds stand in the order in which its customers buy them (`Tent`, then `Sleeping Bag`, ...), and the last
leads back to the first. Titles use `titles`; queries mostly, and descriptions always, use `synonyms`, so that the two
overlap only in part.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of product."""

    titles: tuple[str, str]
    synonyms: tuple[str, str, str]
    use: str


class Attribute(NamedTuple):
    """One style of product, which any kind may have."""

    title: str
    synonyms: tuple[str, str, str]


KINDS_PER_CATEGORY = 4
CATEGORIES_PER_DEPARTMENT = 3


def _kind(titles: str, synonyms: str, use: str) -> Kind:
    first, second = titles.split("|")
    one, two, three = synonyms.split("|")
    return Kind((first, second), (one, two, three), use)


DEPARTMENTS: dict[str, dict[str, tuple[Kind, ...]]] = {
    "Outdoors": {
        "Camping": (
            _kind("Tent|Dome Tent", "camp shelter|bivouac|canvas hideaway", "nights under the stars"),
            _kind("Sleeping Bag|Mummy Bag", "bedroll|camp quilt|trail bedding", "cold nights on the ground"),
            _kind("Camp Stove|Gas Burner", "trail cooker|portable cooktop|field hob", "hot meals far from home"),
            _kind("Lantern|Camp Light", "campsite lamp|hanging torch|evening glow light", "evenings at the campsite"),
        ),
        "Cycling": (
            _kind("Bicycle|Touring Bike", "pushbike|two wheeler|commuter cycle", "daily rides"),
            _kind("Cycling Helmet|Bike Helmet", "rider headgear|crash hat|skull protector", "safe rides in traffic"),
            _kind("Bike Lock|U Lock", "anti theft shackle|wheel chain|security bolt", "parking in town"),
            _kind("Tyre Pump|Floor Pump", "inflator|air filler|pressure pusher", "soft tyres"),
        ),
        "Fishing": (
            _kind("Fishing Rod|Casting Rod", "angling pole|fly pole|angler stick", "mornings at the lake"),
            _kind("Spinning Reel|Fishing Reel", "line winder|bait caster|cord spool", "long casts"),
            _kind("Tackle Box|Lure Case", "hook organiser|bait chest|angler trunk", "hooks and lures in good order"),
            _kind("Landing Net|Catch Net", "fish scoop|mesh catcher|river snare", "bringing the catch ashore"),
        ),
    },
    "Kitchen": {
        "Coffee": (
            _kind("Coffee Grinder|Burr Grinder", "bean mill|bean crusher|espresso mill", "freshly ground beans"),
            _kind("Pour Over Dripper|Coffee Dripper", "filter cone|brew funnel|drip brewer", "slow morning brews"),
            _kind("Gooseneck Kettle|Kettle", "water boiler|hot water jug|teapot heater", "water at the right heat"),
            _kind("Coffee Mug|Mug", "drinking cup|beaker|java tumbler", "the first cup of the day"),
        ),
        "Baking": (
            _kind("Stand Mixer|Dough Mixer", "batter beater|kneading machine|whipping robot", "bread and batter"),
            _kind("Cake Tin|Springform Pan", "sponge mould|baking form|gateau dish", "birthday cakes"),
            _kind("Rolling Pin|Pastry Roller", "dough flattener|crust roller|pie cylinder", "thin pastry"),
            _kind("Cooling Rack|Wire Rack", "cookie grid|pastry grate|airing shelf", "crisp crusts"),
        ),
        "Cooking": (
            _kind("Skillet|Frying Pan", "griddle|saute dish|searing plate", "weeknight suppers"),
            _kind("Chef Knife|Cook's Knife", "kitchen blade|slicer|carving edge", "clean cuts"),
            _kind("Cutting Board|Chopping Board", "butcher block|prep slab|dicing plank", "tidy worktops"),
            _kind("Apron|Kitchen Apron", "pinafore|cook smock|splash bib", "messy recipes"),
        ),
    },
    "Clothing": {
        "Winter Wear": (
            _kind("Parka|Down Jacket", "cold weather coat|padded anorak|snow overcoat", "frosty commutes"),
            _kind("Beanie|Merino Beanie", "wool hat|knit cap|toque", "warm ears"),
            _kind("Mittens|Fleece Mittens", "hand warmers|winter gloves|mitts", "snowball weather"),
            _kind("Scarf|Knitted Scarf", "neck wrap|muffler|throat shawl", "windy walks"),
        ),
        "Footwear": (
            _kind("Hiking Boots|Trail Boots", "walking shoes|ankle trekkers|rambler footwear", "rough paths"),
            _kind("Crew Socks|Boot Socks", "hosiery|foot sleeves|calf stockings", "feet without blisters"),
            _kind("Insoles|Arch Insoles", "shoe inserts|heel cushions|footbeds", "long days on the feet"),
            _kind("Shoe Brush|Boot Brush", "leather cleaner|suede scrubber|polish applicator", "shoes that last"),
        ),
        "Running": (
            _kind("Running Shorts|Racing Shorts", "jogging bottoms|sprint trunks|athletic briefs", "summer miles"),
            _kind("Headband|Sport Headband", "sweat stopper|brow strap|forehead ring", "sweaty intervals"),
            _kind("Hydration Belt|Bottle Belt", "drink carrier|waist flask|sip holster", "thirsty long runs"),
            _kind("Stopwatch|Lap Timer", "chronometer|split counter|pace clock", "honest lap times"),
        ),
    },
    "Music": {
        "Guitar": (
            _kind("Acoustic Guitar|Guitar", "six string|steel string instrument|folk strummer", "songs by the fire"),
            _kind("Clip Tuner|Guitar Tuner", "pitch detector|note finder|tone checker", "strings in tune"),
            _kind("Capo|Spring Capo", "fret clamp|key changer|neck clip", "quick key changes"),
            _kind("Guitar Stand|Guitar Hanger", "instrument rest|string cradle|wall mount hook", "safe resting places"),
        ),
        "Recording": (
            _kind("Condenser Microphone|Microphone", "vocal mic|voice catcher|podcast mike", "clear voices"),
            _kind(
                "Audio Interface|Sound Interface", "usb preamp|recording box|signal converter", "takes without noise"
            ),
            _kind("Studio Headphones|Headphones", "ear cans|monitoring headset|closed earpieces", "careful mixes"),
            _kind("Pop Filter|Pop Shield", "plosive screen|breath blocker|vocal mesh", "speech without thumps"),
        ),
        "Drums": (
            _kind("Snare Drum|Snare", "side drum|rattle drum|marching tom", "tight backbeats"),
            _kind("Drumsticks|Hickory Sticks", "beaters|percussion mallets|drummer wands", "fast rolls"),
            _kind("Crash Cymbal|Cymbal", "brass splash|metal disc|ride plate", "loud finales"),
            _kind("Practice Pad|Drum Pad", "silent trainer|rebound mat|rehearsal surface", "drills at midnight"),
        ),
    },
    "Garden": {
        "Vegetables": (
            _kind(
                "Seed Tray|Propagator Tray", "sprouting flat|seedling starter|germination box", "early spring sowing"
            ),
            _kind("Hand Trowel|Trowel", "planting spade|digging scoop|soil shovel", "moving young plants"),
            _kind("Watering Can|Can Sprayer", "plant pourer|rose spout jug|sprinkling pail", "dry weeks in July"),
            _kind(
                "Harvest Basket|Garden Trug", "picking hamper|crop carrier|produce pannier", "the day of the harvest"
            ),
        ),
        "Lawn": (
            _kind("Lawn Mower|Reel Mower", "grass cutter|turf trimmer|sward shaver", "even stripes"),
            _kind("Leaf Rake|Rake", "leaf gatherer|thatch comb|autumn sweeper", "fallen leaves"),
            _kind(
                "Sprinkler|Oscillating Sprinkler", "lawn waterer|spray irrigator|mist thrower", "green grass in August"
            ),
            _kind("Lawn Edger|Half Moon Edger", "border slicer|turf edge tool|path divider", "crisp borders"),
        ),
        "Wild Birds": (
            _kind("Bird Feeder|Seed Feeder", "finch dispenser|suet hanger|robin diner", "winter visitors"),
            _kind("Birdbath|Pedestal Birdbath", "avian basin|sparrow pool|splash bowl", "thirsty songbirds"),
            _kind("Nest Box|Nesting Box", "tit house|fledgling home|wren lodge", "spring broods"),
            _kind(
                "Garden Binoculars|Binoculars", "field glasses|bird spotter|twin scopes", "watching without disturbing"
            ),
        ),
    },
    "Office": {
        "Workspace": (
            _kind(
                "Standing Desk|Writing Desk", "work table|height adjustable bureau|study bench", "upright afternoons"
            ),
            _kind("Office Chair|Task Chair", "swivel seat|rolling stool|computer throne", "long calls"),
            _kind("Monitor Arm|Screen Arm", "display mount|screen bracket|panel swing", "a clear view of the screen"),
            _kind("Desk Lamp|Reading Lamp", "table light|study illuminator|work luminaire", "late reading"),
        ),
        "Stationery": (
            _kind("Fountain Pen|Nib Pen", "ink writer|calligraphy stylus|signature quill", "letters by hand"),
            _kind("Ink Bottle|Bottled Ink", "pen refill|writing fluid|dye flask", "pages of notes"),
            _kind("Notebook|Journal", "diary|jotter|lined pages", "plans and lists"),
            _kind("Pen Case|Pen Roll", "pencil pouch|stationery wallet|nib sleeve", "pens on the move"),
        ),
        "Photography": (
            _kind("Mirrorless Camera|Camera", "photo shooter|picture taker|digital snapper", "family trips"),
            _kind("Tripod|Travel Tripod", "three leg support|steady legs|camera perch", "sharp long exposures"),
            _kind("Lens Filter|Polarising Filter", "glare cutter|optic screw on|glass protector", "deep blue skies"),
            _kind("Camera Bag|Camera Sling", "photographer satchel|gear holdall|body pouch", "carrying gear all day"),
        ),
    },
}

ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("Waterproof", ("rainproof", "weather sealed", "splash resistant")),
    Attribute("Compact", ("small", "space saving", "pocket size")),
    Attribute("Lightweight", ("featherlight", "weightless", "airy")),
    Attribute("Vintage", ("retro", "old fashioned", "classic look")),
    Attribute("Rugged", ("heavy duty", "tough", "hard wearing")),
    Attribute("Recycled", ("eco friendly", "sustainable", "green")),
    Attribute("Kids", ("junior", "child sized", "youth")),
    Attribute("Deluxe", ("luxury", "premium", "high end")),
    Attribute("Folding", ("collapsible", "foldaway", "packable")),
    Attribute("Handmade", ("artisan", "handcrafted", "workshop made")),
)

COLOURS: tuple[str, ...] = ("Navy", "Crimson", "Olive", "Charcoal", "Ivory", "Teal", "Mustard", "Plum")

DEPARTMENT_NAMES: tuple[str, ...] = tuple(DEPARTMENTS)
CATEGORY_NAMES: tuple[str, ...] = tuple(name for categories in DEPARTMENTS.values() for name in categories)
KINDS: tuple[Kind, ...] = tuple(
    kind for categories in DEPARTMENTS.values() for kinds in categories.values() for kind in kinds
)
SINGULAR: tuple[int, ...] = tuple(number for number, kind in enumerate(KINDS) if not kind.titles[0].endswith("s"))
"""The kinds (positions in `KINDS`) that `it` can stand for."""


def category_of(kind: int) -> int:
    """Return the category (a position in `CATEGORY_NAMES`) of a kind (a position in `KINDS`)."""
    return kind // KINDS_PER_CATEGORY


def department_of(kind: int) -> int:
    """Return the department (a position in `DEPARTMENT_NAMES`) of a kind (a position in `KINDS`)."""
    return kind // (KINDS_PER_CATEGORY * CATEGORIES_PER_DEPARTMENT)


def next_kind(kind: int) -> int:
    """Return the kind that customers of a kind's category buy after it."""
    first = category_of(kind) * KINDS_PER_CATEGORY
    return first + (kind - first + 1) % KINDS_PER_CATEGORY
