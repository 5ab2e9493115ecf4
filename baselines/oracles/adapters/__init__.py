"""Other people's models here, and our models in other people's harnesses."""
