"""Templates of the cards that releases carry, filled by `recfound_data.card.render`."""
