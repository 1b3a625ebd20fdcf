import Foundation
import IR
import Passes
import Testing

@Suite struct CaseTests {
  static let names =
    (try? FileManager.default.contentsOfDirectory(atPath: CaseFile.folder))
    .map { $0.filter { $0.hasSuffix(".mir") }.sorted() } ?? []

  @Test func findsTheCases() { #expect(Self.names.count >= 10) }

  @Test(arguments: names) func holds(_ name: String) throws {
    let file = try CaseFile(name)
    for section in file.sections {
      do {
        try file.run(section)
      } catch {
        Issue.record("\(name): \(error)")
      }
    }
  }

  @Test func passesHaveUniqueNamesAndSummaries() {
    #expect(PassRegistry.all.duplicateNames.isEmpty)
    for type in PassRegistry.all.types {
      #expect(type.name.wholeMatch(of: /[a-z]+(-[a-z]+)*/) != nil, "\(type.name)")
      #expect(!type.summary.isEmpty && !type.summary.contains("\n") && type.summary.last != ".")
    }
  }

  @Test func everyPassIsInACase() throws {
    let pipelines = try Self.names.flatMap { try CaseFile($0).sections.map(\.pipeline) }.joined(separator: ",")
    for name in PassRegistry.all.names { #expect(pipelines.contains(name), "no case runs '\(name)'") }
  }

  /// The rules of all passes that do not make theirs from what they find.
  static let rules =
    Canonicalize().rules + FoldBatchNorm().rules + FoldRepConv().rules + ExpandBatchNorm().rules
    + FoldAffine().rules + FoldNorm().rules.prefix(2) + CollapseLinear().rules
    + KeepKronecker().rules
    + Fuse.operatorRules + Fuse.epilogueRules + FuseQuantized().rules

  @Test func everyRuleFiresInACase() throws {
    var fired: Set<String> = []
    for name in Self.names {
      let file = try CaseFile(name)
      for section in file.sections { fired.formUnion((try? file.run(section)) ?? []) }
    }
    let names = Self.rules.map(\.name)
    #expect(Set(names).count == names.count)
    #expect(names.filter { !fired.contains($0) } == [])
  }

  /// Every rule has a case that comes close to what it looks for, where it is tried and does nothing.
  @Test func everyRuleHoldsBackInACase() throws {
    let rules = Dictionary(Self.rules.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    var heldBack: Set<String> = []
    for name in Self.names {
      let file = try CaseFile(name)
      for section in file.sections {
        for miss in section.nearMisses {
          let run = try file.run(miss, in: section)
          for rule in miss.rules {
            let tried = try #require(rules[rule], "\(name):\(miss.line): no rule '\(rule)'")
            #expect(!run.counted.contains(rule), "\(name):\(miss.line): '\(rule)' fires in '@\(miss.function)'")
            #expect(
              run.operators.contains { tried.isTried(at: $0) },
              "\(name):\(miss.line): '\(rule)' is not tried in '@\(miss.function)'")
            heldBack.insert(rule)
          }
        }
      }
    }
    #expect(Self.rules.map(\.name).filter { !heldBack.contains($0) } == [])
  }
}
