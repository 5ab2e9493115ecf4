"""Trained models handed on: a checkpoint as a folder that transformers loads."""
