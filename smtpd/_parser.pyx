# Bytes to lines, commands and bodies; _parser.pyi is the documented face.
