"""A cell's numbers had once more: scored again, its model built again, or the whole cell trained again."""
