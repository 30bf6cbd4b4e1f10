"""The lowest floor: identifiers, errors, messages and the wire, shared by every process of the file system."""
