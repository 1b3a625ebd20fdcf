import Base
import IR
import Tensors
import Testing

@Suite struct ScalarTextTests {
  @Test(arguments: [
    "add(multiply(%0, 0.5), relu(%1))", "select(less(%0, 0.0), %1, -0.0)", "gelu_tanh(%3)", "1e-05", "inf", "-inf",
    "nan",
    "bits(0x7fc00001)", "3.4028235e+38", "1e-45", "not(and(%0, or(%1, %2)))",
  ]) func expressionsRoundTrip(_ text: String) throws {
    #expect(try ScalarExpression(parsing: text).description == text)
  }

  @Test func constantsKeepTheirBits() throws {
    for bits in [0, 0x8000_0000, 1, 0x7f7f_ffff, 0x7f80_0000, 0xffc0_0000, 0x7fa0_0000, 0x3dcc_cccd] as [UInt32] {
      let expression = ScalarExpression.unary(.abs, .constant(bits))
      #expect(try ScalarExpression(parsing: expression.description) == expression)
    }
  }

  @Test(arguments: [
    ("", "is not a number, an input or a function"), ("%x", "'%x' is not an input"), ("%-1", "is not an input"),
    ("%99999999999999999999", "is not an input"), ("add(%0)", "expected ','"), ("relu(%0", "expected ')'"),
    ("relu(%0))", "found more than one expression"), ("%0 %1", "found more than one expression"),
    ("rely(%0)", "unknown function 'rely'"), ("bits(0x123456789)", "are not the bits of a number"),
    (String(repeating: "abs(", count: 100_000), "found more than 200 levels"),
  ]) func badExpressionsAreErrors(_ text: String, _ message: String) {
    let error = #expect(throws: CompileError.self) { try ScalarExpression(parsing: text) }
    #expect(error?.description.contains(message) == true, "\(String(describing: error).prefix(300))")
  }

  @Test func sizesRoundTrip() throws {
    let t = Symbol("T", in: 1...128)
    let n = Symbol("batch.size", in: 0...7)
    let symbols = [t.name: t, n.name: n]
    let (a, b) = (Dim.symbol(t), Dim.symbol(n))
    let (area, square) = (try #require(Dim.product(a, b)), try #require(Dim.product(a, a)))
    let dims: [Dim] = [
      0, 17, -3, a, a * 2 + 1, a - b, (a + 1) / 2, a / 2 / 3, (a * 3) / 2, ((a + 1) / 2) * 3 - 4, b * -1 + 5,
      (a - b) / 7 + a,
      ((a / 2 + b) / 3 + 1) / 5, area, area / 2 + a, (square - 1) / 3,
    ]
    for dim in dims { #expect(try Dim.parse(dim.description, symbols: symbols) == dim, "\(dim)") }
    #expect(try Dim.parse(" ( T + 1 ) / 2 ", symbols: symbols) == (a + 1) / 2)
    #expect(try Dim.parse("7/2", symbols: symbols) == 3)
  }

  @Test(arguments: [
    ("", "is not a size"), ("T", "unknown symbol 'T'"), ("1+", "is not a size"), ("(N", "closing parenthesis"),
    ("N N", "is not a size"),
    ("N/0", "divides by"), ("N/N", "divides by"), ("99999999999999", "too large"),
    ("1000000000000*(1000000000000*N)", "too large"), (String(repeating: "(", count: 100_000), "nested too deeply"),
    ("N/1.5", "is not a size"),
  ]) func badSizesAreErrors(_ text: String, _ message: String) {
    let error = #expect(throws: CompileError.self) { try Dim.parse(text, symbols: ["N": Symbol("N", in: 1...4)]) }
    #expect(error?.description.contains(message) == true, "\(String(describing: error).prefix(300))")
  }
}
