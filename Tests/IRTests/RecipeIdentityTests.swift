import IR
import TestSupport
import Tensors
import Testing

/// Recipes compared by what they compute.
@Suite struct RecipeIdentityTests {
  private let type = TensorType(.f32, [2])

  @Test func comparesExpressions() throws {
    var builder = GraphBuilder(name: "f")
    let a = builder.constant(.inline("a", .f32, [2], [1, 2] as [Float]))
    let b = builder.constant(.inline("b", .f32, [2], [3, 4] as [Float]))
    let x = builder.input("x", type)
    let sums = try [(a, b), (a, b), (b, a)].map { try builder.emit(Add(), $0.0, $0.1) }
    let other = try builder.emit(Subtract(), a, b)
    let mixed = try builder.emit(Add(), a, x)
    let found = (sums + [other, mixed]).map { RecipeIdentity($0, in: builder.graph) }
    #expect(found[0] != nil && found[0] == found[1])
    #expect(found[0] != found[2])
    #expect(found[0] != found[3])
    #expect(found[4] == nil)
  }

  /// The ways from the last of 100 sums to the first number are 2^100.
  @Test(arguments: [false, true]) func endsInDeepSums(ofConstants: Bool) throws {
    var builder = GraphBuilder(name: "f")
    var value =
      ofConstants
      ? builder.constant(.inline("a", .f32, [2], [1, 2] as [Float])) : builder.input("x", type)
    for _ in 0..<100 { value = try builder.emit(Add(), value, value) }
    let time = ThreadTime()
    #expect(RecipeIdentity(value, in: builder.graph) == nil)
    #expect(time.seconds < 1)
  }
}
