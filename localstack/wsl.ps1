<#
.SYNOPSIS
    Sets up the toolkit on Windows: WSL2 with Ubuntu 24.04, then bootstrap.sh in it.

.DESCRIPTION
    Call it from the checkout, on Windows 11 or Windows 10 2004 and later:

        powershell -ExecutionPolicy Bypass -File localstack\wsl.ps1 [run|test|setup]

    The checkout's files are copied into Ubuntu, to ~/fruits-toolkit: Spark and MinIO are many times
    slower on a Windows drive. A copy that is there already is left as it is and used.

    This file is checked by a parser for mistakes of syntax; it has not been run by the tests.
#>
param(
    [ValidateSet('run', 'test', 'setup')]
    [string]$Command = 'run',
    [string]$Distribution = 'Ubuntu-24.04'
)

$ErrorActionPreference = 'Stop'
$env:WSL_UTF8 = '1' # wsl.exe writes UTF-16 otherwise; an old one does so nevertheless

function Stop-WithRemedy([string]$What, [string]$Remedy) {
    Write-Host "$What" -ForegroundColor Red
    Write-Host "What to do: $Remedy"
    exit 1
}

if (-not (Get-Command wsl.exe -ErrorAction SilentlyContinue)) {
    Stop-WithRemedy 'This Windows has no wsl.exe.' 'Update to Windows 11, or to Windows 10 2004 or later.'
}

$installed = @(& wsl.exe --list --quiet) | ForEach-Object { ("$_" -replace "`0", '').Trim() }
if ($installed -notcontains $Distribution) {
    Write-Host "Installing WSL2 with $Distribution; Windows may ask for administrator rights ..."
    & wsl.exe --install --distribution $Distribution --no-launch
    if ($LASTEXITCODE -ne 0) {
        Stop-WithRemedy "wsl --install ended with code $LASTEXITCODE." 'Turn on virtualization in the BIOS, run "wsl --update" as administrator, and call this again.'
    }
    Write-Host "Now, once: restart Windows if it asked for that, open `"$Distribution`" from the start menu to"
    Write-Host 'choose a user name and a password, and call this script again.'
    exit 0
}

# A list with the columns NAME STATE VERSION, the default one marked with a star.
$line = @(& wsl.exe --list --verbose) | ForEach-Object { "$_" -replace "`0", '' } | Where-Object { $_ -match "^\W*$([regex]::Escape($Distribution))\s" }
if ("$line" -match '\s1\s*$') {
    Stop-WithRemedy "$Distribution runs under WSL 1, where Spark does not work well." "wsl --set-version $Distribution 2"
}

$checkout = Split-Path -Parent $PSScriptRoot
$script = @'
set -eu
target="$HOME/fruits-toolkit"
if [ ! -e "$target" ]; then
    mkdir "$target"
    tar --exclude=./.venv -C "$1" -cf - . | tar -C "$target" -xf -
    # git on Windows may have checked the texts out with line ends of its own.
    cr=$(printf '\r')
    grep -rlIZ "$cr\$" "$target" | xargs -0r sed -i 's/\r$//'
fi
cd "$target"
exec bash localstack/bootstrap.sh "$2"
'@ -replace "`r", ''

# Encoded, and through a file: PowerShell 5.1 drops quotes in the arguments of programs.
$linuxCheckout = (& wsl.exe --distribution $Distribution --exec wslpath -a "$($checkout -replace '\\', '/')" | Out-String).Trim()
$encoded = [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($script))
& wsl.exe --distribution $Distribution --exec bash -c "echo $encoded | base64 -d > /tmp/fruits-toolkit-setup.sh"
& wsl.exe --distribution $Distribution --exec bash /tmp/fruits-toolkit-setup.sh $linuxCheckout $Command
exit $LASTEXITCODE
