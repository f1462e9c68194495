from fixtures.releases import origin, release

__all__ = ["origin", "release"]
