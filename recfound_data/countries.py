"""Countries as people write them, so that nothing else of a place is taken for one."""

from __future__ import annotations

import polars as pl

_OWN_NAMES = """
Afghanistan|Albania|Algeria|Andorra|Angola|Antigua and Barbuda|Argentina|Armenia|Australia|Austria|Azerbaijan|Bahamas
Bahrain|Bangladesh|Barbados|Belarus|Belgium|Belize|Benin|Bermuda|Bhutan|Bolivia|Bosnia and Herzegovina|Botswana|Brazil
Brunei|Bulgaria|Burkina Faso|Burma|Burundi|Cambodia|Cameroon|Canada|Cape Verde|Chad|Chile|China|Colombia|Comoros|Congo
Costa Rica|Croatia|Cuba|Cyprus|Czech Republic|Denmark|Djibouti|Dominica|Dominican Republic|Ecuador|Egypt|El Salvador
Eritrea|Estonia|Ethiopia|Fiji|Finland|France|Gabon|Gambia|Germany|Ghana|Greece|Grenada|Guatemala|Guinea|Guyana|Haiti
Honduras|Hong Kong|Hungary|Iceland|India|Indonesia|Iran|Iraq|Ireland|Israel|Italy|Ivory Coast|Jamaica|Japan|Jordan
Kazakhstan|Kenya|Kiribati|Kuwait|Kyrgyzstan|Laos|Latvia|Lebanon|Lesotho|Liberia|Libya|Liechtenstein|Lithuania
Luxembourg|Macedonia|Madagascar|Malawi|Malaysia|Maldives|Mali|Malta|Mauritania|Mauritius|Mexico|Moldova|Monaco|Mongolia
Montenegro|Morocco|Mozambique|Namibia|Nauru|Nepal|Netherlands|New Zealand|Nicaragua|Niger|Nigeria|North Korea|Norway
Oman|Pakistan|Palau|Panama|Papua New Guinea|Paraguay|Peru|Philippines|Poland|Portugal|Puerto Rico|Qatar|Romania|Russia
Rwanda|Saint Lucia|Samoa|San Marino|Saudi Arabia|Senegal|Serbia|Seychelles|Sierra Leone|Singapore|Slovakia|Slovenia
Somalia|South Africa|South Korea|Spain|Sri Lanka|Sudan|Suriname|Swaziland|Sweden|Switzerland|Syria|Taiwan|Tajikistan
Tanzania|Thailand|Togo|Tonga|Trinidad and Tobago|Tunisia|Turkey|Turkmenistan|Uganda|Ukraine|United Arab Emirates
United Kingdom|United States|Uruguay|Uzbekistan|Vanuatu|Venezuela|Vietnam|Yemen|Yugoslavia|Zambia|Zimbabwe
"""
_OTHER_NAMES = {
    "United States": ("usa", "us", "u.s.a.", "u.s.", "u.s.a", "united state", "united states of america", "america"),
    "United Kingdom": ("uk", "u.k.", "england", "scotland", "wales", "northern ireland", "great britain"),
    "Germany": ("deutschland",),
    "Austria": ("oesterreich", "österreich"),
    "Switzerland": ("schweiz", "suisse"),
    "Spain": ("españa", "espana"),
    "Italy": ("italia",),
    "Netherlands": ("the netherlands", "holland", "nederland"),
    "Brazil": ("brasil",),
    "Belgium": ("belgique", "belgië"),
    "Philippines": ("phillipines", "philippine"),
    "South Korea": ("korea", "republic of korea"),
    "United Arab Emirates": ("uae", "u.a.e"),
    "Vietnam": ("viet nam",),
    "China": ("p.r. china", "p.r.china"),
    "New Zealand": ("nz",),
}
_NAMES = {name.lower(): name for name in _OWN_NAMES.strip().replace("\n", "|").split("|")} | {
    other: name for name, others in _OTHER_NAMES.items() for other in others
}


def country(location: pl.Expr) -> pl.Expr:
    """Return the country that a location ends with, `lyon, rhone, france`; null where its last part is none."""
    last = location.str.split(",").list.last().str.to_lowercase().str.strip_chars(' "\\.')
    return last.replace_strict(_NAMES, default=None, return_dtype=pl.String)
