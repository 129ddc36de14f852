"""The bundle on disk: manifest, hashes, atomic writes. FORMAT.md beside this file is the contract."""
