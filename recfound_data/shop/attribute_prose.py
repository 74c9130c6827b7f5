"""What product pages say of materials, origin, weight and packs, so that each value is found where it is said."""

from recfound_data.shop.taxonomy import KINDS

_MATERIALS_OF_KINDS = """
ripstop nylon|cotton canvas; goose down|polyester fleece; stainless steel|brass; anodised aluminium|frosted glass
chromoly steel|carbon fibre; polycarbonate|foamed polystyrene; hardened steel|titanium; forged steel|cast aluminium
graphite|fibreglass; machined aluminium|carbon composite; polypropylene|plywood; knotless rubber|nylon mesh
ceramic|tool steel; porcelain|borosilicate glass; stainless steel|enamelled iron; stoneware|bone china
die-cast zinc|brushed steel; carbon steel|silicone; beech wood|marble; chromed wire|bamboo
cast iron|tri-ply steel; damascus steel|high carbon steel; maple wood|recycled rubber; waxed cotton|linen
duck down|recycled polyester; merino wool|acrylic yarn; sheepskin|fleece; cashmere|lambswool
full grain leather|suede; combed cotton|bamboo viscose; memory foam|cork; horsehair|boar bristle
stretch polyester|mesh nylon; terry cloth|elastane; neoprene|coated nylon; ABS plastic|stainless steel
sitka spruce|mahogany; spring steel|rubberised plastic; zinc alloy|aircraft aluminium; walnut wood|tubular steel
die-cast metal|aluminium; extruded aluminium|sheet steel; protein leather|velour; nylon mesh|woven metal
birch ply|rolled brass; hickory|white oak; bell bronze|cymbal brass; natural rubber|silicone
recycled plastic|pressed peat; forged carbon steel|ash wood; galvanised steel|copper; woven willow|seagrass
powder coated steel|alloy; spring steel|bamboo; brass|ABS plastic; tempered steel|ash wood
cedar wood|polycarbonate; terracotta|cast stone; untreated larch|woodcrete; magnesium alloy|rubber armour
solid oak|laminated particle board; woven mesh|bonded leather; brushed aluminium|cold rolled steel; brass|opal glass
celluloid|ebonite; glass|recycled glass; linen paper|vellum; harness leather|waxed canvas
magnesium alloy|polycarbonate; carbon fibre|aluminium; optical glass|coated resin; ballistic nylon|waxed canvas
"""
MATERIALS: tuple[tuple[str, str], ...] = tuple(
    (materials.strip().split("|")[0], materials.strip().split("|")[1])
    for line in _MATERIALS_OF_KINDS.strip().splitlines()
    for materials in line.split(";")
)
"""The two materials that each kind of product may be made of, in the order of `KINDS`."""
assert len(MATERIALS) == len(KINDS)

ORIGINS: tuple[str, ...] = (
    "Portugal", "Canada", "Taiwan", "Denmark", "Vietnam", "Slovenia", "Mexico", "Japan", "Estonia", "India",
)  # fmt: skip

SENTENCES: dict[str, tuple[str, ...]] = {
    "Material": (
        "It is made of {value}, which ages well.",
        "We chose {value} because it outlasts everything else that we tried.",
        "Work in {value} takes longer, and you can tell.",
        "The {value} is left bare so that you see what you paid for.",
    ),
    "Country of Origin": (
        "Every piece is put together by hand in {value}.",
        "It comes from a small works in {value}.",
        "Made in {value} since the company was founded.",
    ),
    "Item Weight": (
        "At {value} it is easy to carry.",
        "All in all it weighs {value}.",
        "Our scales say {value}, packing not counted.",
    ),
    "Color": (
        "Shown here in {value}.",
        "This one is {value} all over.",
        "The finish is {value}, the same as the rest of the range.",
    ),
    "Pack Size": (
        "Sold as a {value}.",
        "What you get is a {value}.",
        "It comes to you as a {value}.",
    ),
}
BULLETS: dict[str, tuple[str, ...]] = {
    "Material": ("Material: {value}", "Solid {value} throughout", "100% {value}"),
    "Country of Origin": ("Made in {value}", "Origin: {value}"),
    "Item Weight": ("Weight: {value}", "Weighs {value}"),
    "Color": ("Colour: {value}", "{value} finish"),
    "Pack Size": ("{value}", "Contents: {value}"),
}
FILLERS: tuple[str, ...] = (
    "Nothing about it is there for show.",
    "Read the leaflet before first use.",
    "It will look better in ten years than it does today.",
    "Ask us if you are unsure which one you need.",
    "Good things take time, and this one took two winters to design.",
    "We use it ourselves every week.",
)
"""Sentences that hold no value of any attribute."""
