"""Count the lines of code of the provider: docstrings, comments and blank lines don't count."""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_HAS_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str) -> int:
    """Return how many lines of a module have code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _HAS_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, docstring.end_lineno + 1))
    return len(lines)


def main(root: Path) -> None:
    """Print the lines of code, all lines and files of each folder."""
    code, lines, files = Counter(), Counter(), Counter()
    for path in root.rglob("*.py"):
        source = path.read_text()
        for folder in {(path.relative_to(root).parts[:-1] or ("",))[0], "all"}:
            code[folder] += code_lines(source)
            lines[folder] += source.count("\n")
            files[folder] += 1
    print(f"{'':14} {'code':>7} {'lines':>7} {'files':>7}")
    for folder in sorted(code, key=code.__getitem__):
        print(f"{folder or root.name:14.14} {code[folder]:7,} {lines[folder]:7,} {files[folder]:7}")


main(Path(sys.argv[1]))
