// Compares the binding with rocmforge.h: structs by what the C compiler says of them, constants, functions.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using RocmForge;

static class Layout
{
    /// <summary>Enums and the beginning of their constants' names in the header.</summary>
    private static readonly Dictionary<Type, string> Constants = new Dictionary<Type, string>
    {
        { typeof(Status), "RF_" },
        { typeof(ErrorCode), "RF_E_" },
        { typeof(InstructionSet), "RF_ISA_" },
        { typeof(LogLevel), "RF_LOG_" },
        { typeof(Vendor), "RF_VENDOR_" },
        { typeof(LoadFlags), "RF_LOAD_" },
        { typeof(SpecialToken), "RF_TOKEN_" },
        { typeof(TokenizeFlags), "RF_TOKENIZE_" },
        { typeof(ChatFlags), "RF_CHAT_" },
        { typeof(SamplerFlags), "RF_SAMPLER_" },
        { typeof(SessionFlags), "RF_SESSION_" },
        { typeof(GenerateFlags), "RF_GENERATE_" },
        { typeof(FinishReason), "RF_FINISH_" },
    };

    private static IEnumerable<Type> Structs =>
        typeof(Engine).Assembly.GetTypes().Where(type => type.IsValueType && type.Name.StartsWith("rf_"));

    private static IEnumerable<MethodInfo> Functions =>
        typeof(Native).GetMethods(BindingFlags.Static | BindingFlags.NonPublic).Where(m => m.Name.StartsWith("rf_"));

    private static FieldInfo[] Fields(Type type) =>
        type.GetFields(BindingFlags.Instance | BindingFlags.Public).OrderBy(field => field.MetadataToken).ToArray();

    /// <summary>A C program that prints what <see cref="Compare"/> reads.</summary>
    internal static string Source()
    {
        var c = new StringBuilder("#include <rocmforge.h>\n#include <stddef.h>\n#include <stdio.h>\n\n");
        c.Append("int main(void) {\n");
        foreach (Type type in Structs)
        {
            c.AppendFormat("    printf(\"{0} %zu\\n\", sizeof({0}));\n", type.Name);
            foreach (FieldInfo field in Fields(type))
                c.AppendFormat("    printf(\"{0}.{1} %zu:%zu\\n\", offsetof({0}, {1}), sizeof((({0} *)0)->{1}));\n",
                    type.Name, field.Name);
        }
        foreach (string name in Names().Keys) c.AppendFormat("    printf(\"{0} %d\\n\", (int){0});\n", name);
        return c.Append("    return 0;\n}\n").ToString();
    }

    internal static void Compare(string headerPath, string printedPath)
    {
        string header = Regex.Replace(File.ReadAllText(headerPath), "//[^\n]*", "");
        Dictionary<string, string> printed = File.ReadLines(printedPath).ToDictionary(
            line => line.Split(' ')[0], line => line.Split(' ')[1]);
        Check.Test("option structs are laid out as in the header", () => CompareStructs(header, printed));
        Check.Test("constants have the header's values", () => CompareConstants(header, printed));
        Check.Test("functions are those of the header and of the library", () => CompareFunctions(header));
    }

    private static void CompareStructs(string header, Dictionary<string, string> printed)
    {
        var declared = new Dictionary<string, string[]>();
        foreach (Match match in Regex.Matches(header, @"typedef struct \{([^}]*)\} (rf_\w+);"))
            declared[match.Groups[2].Value] = Regex.Matches(match.Groups[1].Value, @"(\w+);").Cast<Match>()
                .Select(field => field.Groups[1].Value).ToArray();
        foreach (Type type in Structs)
        {
            FieldInfo[] fields = Fields(type);
            string[] names = fields.Select(field => field.Name).ToArray();
            // The header may have gained fields at the end; none may be missing or moved before.
            Check.True(names.SequenceEqual(declared[type.Name].Take(names.Length)), type.Name + " has other fields");
            foreach (FieldInfo field in fields)
            {
                string place = Marshal.OffsetOf(type, field.Name).ToInt64() + ":" + Marshal.SizeOf(field.FieldType);
                Check.Equal(printed[type.Name + "." + field.Name], place, type.Name + "." + field.Name);
            }
            int size = Marshal.SizeOf(type), native = int.Parse(printed[type.Name]);
            bool whole = names.Length == declared[type.Name].Length;
            Check.True(whole ? size == native : size < native, type.Name + " has " + size + " bytes, in C " + native);
        }
        // What begins with its size has its like here.
        Check.Equal("", string.Join(" ", declared.Where(entry => entry.Value[0] == "struct_size")
            .Select(entry => entry.Key).Except(Structs.Select(type => type.Name))), "structs that are missing");
    }

    /// <summary>The header's names of all constants, with the binding's values.</summary>
    private static Dictionary<string, int> Names()
    {
        var names = new Dictionary<string, int>();
        foreach (KeyValuePair<Type, string> entry in Constants)
            foreach (object value in Enum.GetValues(entry.Key))
            {
                bool isNoFlag = (int)value == 0 && entry.Key.IsDefined(typeof(FlagsAttribute), false);
                string words = Regex.Replace(value.ToString(), "(?<=[a-z0-9])(?=[A-Z])", "_").ToUpperInvariant();
                if (!isNoFlag) names.Add(entry.Value + words, (int)value);
            }
        names.Add("RF_ABI_VERSION", (int)Library.AbiVersion);
        return names;
    }

    private static void CompareConstants(string header, Dictionary<string, string> printed)
    {
        foreach (KeyValuePair<string, int> entry in Names())
            Check.Equal(printed[entry.Key], entry.Value.ToString(), entry.Key);
        Type[] enums = typeof(Engine).Assembly.GetTypes().Where(type => type.IsEnum && type.Namespace == "RocmForge")
            .ToArray();
        Check.Equal("", string.Join(" ", enums.Except(Constants.Keys)), "enums that are not compared");
    }

    private static void CompareFunctions(string header)
    {
        int compared = 0;
        foreach (MethodInfo function in Functions)
        {
            Match match = Regex.Match(header, @"\b" + function.Name + @"\(([^)]*)\)");
            Check.True(match.Success, "the header has no " + function.Name);
            string parameters = match.Groups[1].Value.Trim();
            int count = parameters == "void" ? 0 : parameters.Split(',').Length;
            Check.Equal(count, function.GetParameters().Length, function.Name + "'s parameters");
            Marshal.Prelink(function); // throws where the library has no such symbol
            compared++;
        }
        Check.True(compared >= 40, "only " + compared + " functions were compared");
    }
}
