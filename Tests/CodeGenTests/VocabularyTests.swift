import CodeGen
import Testing

/// Every target says every verb that kernels are written with.
@Suite struct VocabularyTests {
  /// Verbs whose number depends on the instruction set: products of bytes, and exchanges of lanes.
  private func dependsOnTarget(_ verb: String) -> Bool { verb.hasPrefix("dot") || verb.hasPrefix("exchange") }

  @Test(arguments: TargetRegistry.all.map(\.name)) func verbsAreThoseOfPortable(_ name: String) throws {
    let target = try TargetRegistry.target(named: name)
    let vocabulary = target.vocabulary
    let complete = Set(Target.portable.vocabulary.verbs.keys.filter { !dependsOnTarget($0) })
    let verbs = Set(vocabulary.verbs.keys.filter { !dependsOnTarget($0) })
    let exchanges = [1, 2, 4, 8, 16].filter { $0 < target.lanes }.map { "exchange\($0).f32" }
    #expect(Set(vocabulary.verbs.keys.filter { $0.hasPrefix("exchange") }) == Set(exchanges), "\(name)")
    #expect(complete.subtracting(verbs).sorted() == [], "\(name) lacks verbs")
    #expect(verbs.subtracting(complete).sorted() == [], "\(name) has verbs that no other target has")
    // Nibbles, and 8-bit weights as the target wants them; sums in 16 bits need a verb that moves them to i32.
    #expect(vocabulary.verbs["dotStep.u4"] != nil && vocabulary.eightBitWeights != .u4)
    #expect(vocabulary.verbs["dotStep.\(vocabulary.eightBitWeights.rawValue)"] != nil)
    #expect(vocabulary.verbs["dotStep.i8u8"] != nil, "\(name) has no products of unsigned activations")
    let blocks = [
      "dotStep.u4.block", "dotStep.i8.block", "dotRows.low", "dotRows.high", "dotToken.first", "dotToken.second",
      "dotTokens",
    ]
    for verb in blocks { #expect((vocabulary.verbs[verb] != nil) == vocabulary.hasDotBlocks, "\(name) \(verb)") }
    for form in [ByteDot.Weights.u4, .i8, .u8] where vocabulary.verbs["dotStep.\(form.rawValue)"] != nil {
      let flush = vocabulary.verbs["dotFlush.\(form.rawValue)"]
      #expect((flush != nil) == (vocabulary.stepsPerFlush[form] != nil), "\(name) \(form)")
    }
  }

  /// The functions that templates and other functions call are there, and each is called.
  @Test(arguments: TargetRegistry.all.map(\.name)) func functionsAreThoseThatAreCalled(_ name: String) throws {
    let vocabulary = try TargetRegistry.target(named: name).vocabulary
    func names(_ text: String) -> Set<String> {
      Set(text.split { !($0.isLetter || $0.isNumber || $0 == "_") }.map(String.init).filter { $0.hasPrefix("mcc_") })
    }
    let types = vocabulary.preamble.reduce(into: Set<String>()) { $0.formUnion(names($1)) }
    var called: Set<String> = []
    for template in vocabulary.verbs.values { called.formUnion(names(template)) }
    for (function, text) in vocabulary.functions { called.formUnion(names(text).subtracting([function])) }
    #expect(called.subtracting(types).subtracting(vocabulary.functions.keys).sorted() == [])
    #expect(Set(vocabulary.functions.keys).subtracting(called).sorted() == [])
  }

  @Test func suffixesTellTargetsApart() {
    #expect(Set(TargetRegistry.all.map(\.suffix)).count == TargetRegistry.all.count)
    #expect(Set(TargetRegistry.names).count == TargetRegistry.names.count)
  }
}
