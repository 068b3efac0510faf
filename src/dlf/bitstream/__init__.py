"""The container: header, varints, checksum."""
