using System;
using System.Collections.Generic;
using System.Diagnostics;

/// <summary>The little that these tests need of a framework.</summary>
static class Check
{
    private static int passed, failed;

    internal static void Test(string name, Action test)
    {
        var time = Stopwatch.StartNew();
        try
        {
            test();
            passed++;
            Console.WriteLine("ok      {0} ({1} ms)", name, time.ElapsedMilliseconds);
        }
        catch (Exception e)
        {
            failed++;
            Console.WriteLine("FAILED  {0}: {1}", name, e);
        }
    }

    /// <summary>A figure that the tests measured, for whoever reads their output.</summary>
    internal static void Note(string text) => Console.WriteLine("        " + text);

    internal static void True(bool condition, string what)
    {
        if (!condition) throw new Exception(what);
    }

    internal static void Equal<T>(T expected, T found, string what)
    {
        if (!EqualityComparer<T>.Default.Equals(expected, found))
            throw new Exception(what + ": expected '" + expected + "', found '" + found + "'");
    }

    internal static E Throws<E>(Action action) where E : Exception
    {
        try
        {
            action();
        }
        catch (E e)
        {
            return e;
        }
        throw new Exception("no " + typeof(E).Name);
    }

    internal static int Summary()
    {
        Console.WriteLine("{0} passed, {1} failed", passed, failed);
        return failed == 0 && passed > 0 ? 0 : 1;
    }
}
